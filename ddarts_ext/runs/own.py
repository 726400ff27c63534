"""Functions that a program passes to a run: config.json names them, and a run that goes on is given them again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddarts_ext.runs.folder import RunFolder
from ddarts_ext.runs.losses import called


def named(command: str, given: Mapping[str, Any]) -> dict[str, str]:
    """The names of what is a function in ``given``, by argument. Raises TypeError for what is no function, no text and
    not None."""
    for what, value in given.items():
        if value is not None and not isinstance(value, str) and not callable(value):
            raise TypeError(f"{command}: {what} must be a function, got {type(value).__name__}")
    return {what: called(value) for what, value in given.items() if callable(value)}


def check_again(command: str, folder: RunFolder | None, own: Mapping[str, str], *, resume: bool) -> None:
    """Raise ValueError where the run in ``folder`` goes on with other functions than it began with."""
    if folder is None or not resume or not folder.config_file.is_file():
        return
    before = functions_of(folder.config())
    for what in sorted({*before, *own}):
        if before.get(what) != own.get(what):
            raise ValueError(
                f"{command}: {what} must be {_words(before.get(what))} to resume the run in {folder.path}, "
                f"got {_words(own.get(what))}"
            )


def functions_of(config: Mapping[str, Any]) -> dict[str, str]:
    """Names of the functions that a run was given, by argument, of its config.json."""
    own = config.get("own")
    return {str(what): str(name) for what, name in own.items()} if isinstance(own, dict) else {}


def refuse_functions(command: str, config: Mapping[str, Any]) -> None:
    """Raise ValueError where a run cannot go on from its configuration alone."""
    for what, name in functions_of(config).items():
        raise ValueError(
            f"{command}: {what} must be given again by the program that began the run, as it is the function {name}"
        )


def _words(name: str | None) -> str:
    return "left out" if name is None else f"the function {name}"
