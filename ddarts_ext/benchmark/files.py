"""Python files that are no modules of the package: benchmarks, and what lies beside them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def load_file(path: str | Path) -> ModuleType:
    """The module in a Python file, loaded once. Raises ValueError for what is no such file."""
    path = Path(path).resolve()
    name = f"ddarts_ext_{path.stem}"
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__file__", None) == str(path):
        return known
    spec = importlib.util.spec_from_file_location(name, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ValueError(f"bench: {path} must be a Python file")
    module = importlib.util.module_from_spec(spec)
    # Before it runs: dataclasses look their module up by name.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def neighbour(file: str, name: str) -> ModuleType:
    """The module ``name`` beside ``file``, which may itself be loaded by its path, outside any package."""
    return load_file(Path(file).with_name(f"{name}.py"))
