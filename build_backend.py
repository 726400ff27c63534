"""PEP 517 backend: setuptools' own, building against the torch of the environment that runs pip.

Were torch a build requirement, pip would download the newest CUDA build into every isolated build and compile against
that instead of the torch that is installed. So an installed torch is borrowed: its folder goes to the end of sys.path.
Only where there is none, a range of torch is asked for. ``DDARTS_TORCH_REQ=torch==2.13.0`` asks for exactly that, and
``DDARTS_TORCH_SITE`` names the folder to borrow from where a tool hides the outer environment (``python -m build``,
uv).
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import site
import sys
import sysconfig
from pathlib import Path
from typing import Any

from setuptools import build_meta as _setuptools
from setuptools.build_meta import *  # noqa: F403  (the hooks that need no torch)

TORCH_RANGE = "torch>=2.11"


def _outer_folders() -> list[str]:
    """The site-packages folders of the environment around an isolated build, nearest first."""
    found = [folder for folder in os.environ.get("DDARTS_TORCH_SITE", "").split(os.pathsep) if folder]
    found += [sysconfig.get_path(key) for key in ("purelib", "platlib")]
    if site.ENABLE_USER_SITE or os.environ.get("PYTHONNOUSERSITE"):  # pip sets the latter inside an isolated build
        found.append(site.getusersitepackages())
    settings = Path(sys.prefix, "pyvenv.cfg")
    if settings.is_file() and "include-system-site-packages = true" in settings.read_text().lower():
        base = {"base": sys.base_prefix, "platbase": sys.base_exec_prefix}
        found += [sysconfig.get_path(key, vars=base) for key in ("purelib", "platlib")]
    return [folder for folder in dict.fromkeys(found) if Path(folder).is_dir()]


def _borrow_torch() -> bool:
    """Make an installed torch importable; False where there is none."""
    if os.environ.get("DDARTS_TORCH_REQ"):
        return False
    if importlib.util.find_spec("torch"):
        return True
    folders = _outer_folders()
    if not any(list(importlib.metadata.distributions(name="torch", path=[folder])) for folder in folders):
        return False
    sys.path += [folder for folder in folders if folder not in sys.path]  # last: the isolated setuptools wins
    return True


def _torch_requirement() -> list[str]:
    if os.environ.get("DDARTS_NO_EXTENSION", "") not in ("", "0") or _borrow_torch():
        return []
    return [os.environ.get("DDARTS_TORCH_REQ") or TORCH_RANGE]


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    return [*_setuptools.get_requires_for_build_wheel(config_settings), *_torch_requirement()]


def get_requires_for_build_editable(config_settings: Any = None) -> list[str]:
    return [*_setuptools.get_requires_for_build_editable(config_settings), *_torch_requirement()]


def build_wheel(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    _borrow_torch()
    return _setuptools.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_editable(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    _borrow_torch()
    return _setuptools.build_editable(wheel_directory, config_settings, metadata_directory)
