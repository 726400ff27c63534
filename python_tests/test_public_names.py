"""What `from ddarts_ext import ...` gives."""

from __future__ import annotations

import subprocess
import sys


def test_public_names_are_no_modules_whatever_was_imported_before() -> None:
    """`derive` and `discretize` are functions in modules of the same name."""
    code = """
import types, ddarts_ext
import ddarts_ext.genotype.derivation, ddarts_ext.genotype.discretisation, ddarts_ext.search, ddarts_ext.acceleration
modules = [name for name in ddarts_ext.__all__ if isinstance(getattr(ddarts_ext, name), types.ModuleType)]
print(modules, callable(ddarts_ext.derive), callable(ddarts_ext.accelerate))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "['ops'] True True"


def test_an_unknown_name_is_an_attribute_error() -> None:
    code = "import ddarts_ext; ddarts_ext.missing"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "AttributeError" in done.stderr
