"""A run is a folder: config.json, history.jsonl, genotype.json, checkpoint.pt, each written whole or not at all."""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from filelock import BaseFileLock
from torch import Tensor

from ddarts_ext.runs import checkpoint, history
from ddarts_ext.runs.checkpoint import DamagedError
from ddarts_ext.runs.checkpoint import Record as Record
from ddarts_ext.runs.comparison import differences, short, without
from ddarts_ext.runs.files import is_leftover, write_whole
from ddarts_ext.runs.lock import taken

Value = TypeVar("Value")

_DERIVED = ("images.", "division.")
"""What follows from the images, and from the settings: a difference elsewhere is its reason."""


def _rank(difference: tuple[str, Any, Any]) -> int:
    return next((place for place, what in enumerate(_DERIVED, start=1) if difference[0].startswith(what)), 0)


@dataclass(frozen=True)
class Saved:
    """Where a run can be taken up: what it saved last, and the records of its finished epochs."""

    content: Record
    history: list[Record]


OF_SEEDS = "search --seeds"
"""The command of a folder that holds the runs of several seeds."""


class RunFolder:
    """Files of one run. ``command`` is who writes, for the errors: ``search`` or ``train``.

    One process at a time writes: :meth:`open` takes a lock, :meth:`close` lets it go. say: is told what a person should
    know.
    """

    def __init__(
        self, path: str | Path, command: str = "search", say: Callable[[str], None] = lambda line: None
    ) -> None:
        self.path = Path(path)
        self.command, self.say = command, say
        self.config_file = self.path / "config.json"
        self.history_file = self.path / "history.jsonl"
        self.genotype_file = self.path / "genotype.json"
        self.checkpoint_file = self.path / "checkpoint.pt"
        self.previous_file = self.path / "checkpoint.previous.pt"
        self.save_seconds: float | None = None
        """How long the last :meth:`save` took."""
        self._lock: BaseFileLock | None = None
        self._made: list[Path] = []
        self._first = False
        self._binding = ""

    def open(
        self,
        config: Mapping[str, Any],
        *,
        resume: bool,
        changeable: Collection[str] = (),
        growing: Collection[str] = (),
    ) -> Saved | None:
        """Start a run, or take one up again: what it saved, or None where there is nothing yet. Writes nothing but the
        lock; :meth:`begin` does.

        changeable: dotted paths of settings that may differ from those of the run. growing: those that may be larger.
        Raises ValueError if the folder holds a run and ``resume`` is false, if it holds another one, if it is damaged,
        and if another process writes to it.
        """
        plain = json.loads(json.dumps(config))
        self._check(plain, resume, changeable, growing)
        self._take_lock()
        try:
            # Another process may have begun, or gone on, between the first look and the lock.
            self._check(plain, resume, changeable, growing)
            self._binding = checkpoint.digest(without(plain, {*changeable, *growing}))
            return self._saved() if resume else None
        except BaseException:
            self.close(failed=True)
            raise

    def begin(self, config: Mapping[str, Any]) -> None:
        """Write the configuration, after what :meth:`open` gave was taken up; leftovers of killed processes go."""
        names = [file.name for file in self._files()]
        for leftover in self.path.glob(".*.*"):
            if any(is_leftover(leftover, name) for name in names):
                leftover.unlink(missing_ok=True)
        write_whole(self.config_file, _json(config))

    @contextmanager
    def session(self) -> Iterator[None]:
        """Closes the folder at its end, however that comes."""
        try:
            yield
        except Exception:
            self.close(failed=True)
            raise
        finally:
            self.close()

    def close(self, *, failed: bool = False) -> None:
        """Let others write. A run that ``failed`` before it saved anything leaves no folder behind."""
        if self._lock is None:
            return
        empty = failed and not self._holds_more()
        if empty and self._first:
            self.config_file.unlink(missing_ok=True)
        self._lock.release()
        self._lock = None
        if empty and self._first and self._made:
            with suppress(OSError):
                (self.path / ".lock").unlink(missing_ok=True)
                for folder in self._made:
                    folder.rmdir()

    def _holds_more(self) -> bool:
        """Whether there is anything beside the configuration."""
        return any(entry.name != self.config_file.name and entry.name[0] != "." for entry in self.path.iterdir())

    def _files(self) -> tuple[Path, ...]:
        return (self.config_file, self.history_file, self.genotype_file, self.checkpoint_file, self.previous_file)

    def _take_lock(self) -> None:
        if self._lock is not None:
            return
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.command}: out must be a folder, got the file {self.path}")
        missing = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            reason = error.strerror or type(error).__name__
            raise type(error)(
                f"{self.command}: out must be a folder that can be made, got {self.path}: {reason}"
            ) from error
        self._made, self._first = missing, not self.config_file.exists()
        refusal = f"{self.command}: out must not be in use by another process, got {self.path}"
        self._lock = taken(self.path / ".lock", refusal, self.say)

    def _check(self, config: Record, resume: bool, changeable: Collection[str], growing: Collection[str]) -> None:
        # A configuration alone is a run that ended before its first epoch: nothing is lost if another takes its place.
        begun = any(file.exists() for file in self._files() if file != self.config_file)
        begun = begun or (self.config_file.exists() and self._holds_more())
        if begun and not resume:
            raise ValueError(f"{self.command}: out must be a new folder, or use --resume, got a run in {self.path}")
        if not resume or not self.config_file.is_file():
            return
        old = self.config()
        self._check_command(old, config.get("command"))
        for path, before, now in sorted(differences(old, config, changeable), key=_rank):
            name, more = path.rpartition(".")[2], ""
            if path in growing:
                if isinstance(before, int) and isinstance(now, int) and now > before:
                    continue
                more = " or more"
            what = f"data must be the images of the run: {name}" if path.startswith(_DERIVED) else name
            raise ValueError(
                f"{self.command}: {what} must be {short(before)}{more} to resume the run in {self.path}, "
                f"got {short(now)}"
            )

    def _check_command(self, config: Record, command: Any) -> None:
        if config.get("command") != command:
            raise ValueError(
                f"{self.command}: out must be the folder of a {self.command}, got that of "
                f"{short(config.get('command'))} in {self.path}"
            )

    def _saved(self) -> Saved | None:
        """The last checkpoint that is whole and of this run."""
        records, fault = self._read_history()
        problems: list[ValueError] = []
        for file in (self.checkpoint_file, self.previous_file):
            if not file.is_file():
                continue
            try:
                saved = self._belonging(checkpoint.read(file), file, records, fault)
            except DamagedError as error:
                problems.append(ValueError(f"{self.command}: {error}"))
                continue
            if problems:
                self.say(f"{problems[0]}; continues from {file.name}, after epoch {len(saved.history)}")
            return saved
        if problems:
            raise problems[0]
        if len(records) > 1:
            # The first checkpoint follows the first line; later ones replace it and never leave none.
            raise ValueError(
                f"{self.command}: {self.checkpoint_file} must be there to continue after epoch {len(records)}"
            )
        return None

    def _belonging(self, whole: Record, file: Path, records: list[Record], fault: str) -> Saved:
        content = whole["content"]
        epoch = content.get("epoch")
        if whole["config"] != self._binding:
            raise DamagedError(f"{file} is of a run with another configuration")
        if not isinstance(epoch, int) or not 0 <= epoch <= len(records):
            raise DamagedError(fault or f"{file} is of epoch {epoch}, and {self.history_file} has {len(records)}")
        if history.fingerprint(records[:epoch]) != whole["history"]:
            raise DamagedError(f"{file} is of another history than {self.history_file}")
        return Saved(content, records[:epoch])

    def config(self) -> Record:
        """The configuration the run was started with. Raises FileNotFoundError, ValueError or TypeError."""
        if not self.config_file.is_file():
            raise FileNotFoundError(f"{self.command}: {self.path} must be the folder of a run, but has no config.json")
        try:
            config = json.loads(self.config_file.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{self.command}: {self.config_file} is not valid JSON: {error}") from error
        if not isinstance(config, dict):
            raise TypeError(f"{self.command}: {self.config_file} must hold an object, got {type(config).__name__}")
        return config

    def arguments(self, read: Callable[[Record], Value]) -> Value:
        """What ``read`` makes of the configuration. Raises ValueError where it is of another command, or lacks
        something."""
        config = self.config()
        self._check_command(config, self.command)
        with self._fitting(self.config_file):
            return read(config)

    def history(self) -> list[Record]:
        """One record per finished epoch. Raises ValueError naming the line that is none."""
        records, fault = self._read_history()
        if fault:
            raise ValueError(f"{self.command}: {fault}")
        return records

    def _read_history(self) -> tuple[list[Record], str]:
        if not self.history_file.is_file():
            return [], ""
        return history.decode(self.history_file.read_bytes(), str(self.history_file))

    def write_history(self, records: Sequence[Record]) -> None:
        """Raises ValueError for NaN in a record."""
        write_whole(self.history_file, history.encode(records))

    def restoring(self) -> AbstractContextManager[None]:
        """Within it, what a checkpoint lacks for this run is one ValueError."""
        return self._fitting(self.checkpoint_file)

    @contextmanager
    def _fitting(self, file: Path) -> Iterator[None]:
        """Content of another kind than was expected is named by its file."""
        try:
            yield
        except (KeyError, IndexError, AttributeError, RuntimeError, TypeError) as error:
            raise ValueError(f"{self.command}: {file} does not fit this {self.command}: {_reason(error)}") from error

    def save(self, content: Record, records: Sequence[Record]) -> None:
        """History first: killed in between, the run resumes at the older checkpoint and cuts the history back to it.
        The checkpoint that was last stays as the previous one."""
        began = time.monotonic()
        self.write_history(records)
        checkpoint.write(
            self.checkpoint_file,
            content,
            config=self._binding,
            history=history.fingerprint(records),
            previous=self.previous_file,
        )
        self.save_seconds = time.monotonic() - began

    def save_if_quick(self, content: Record, records: Sequence[Record]) -> bool:
        """:meth:`save` if it takes less than two seconds, as far as can be told: who stops a run may not wait."""
        expected = self.save_seconds if self.save_seconds is not None else _size(content) / 50e6
        if expected < 2:
            self.save(content, records)
        return expected < 2

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        write_whole(self.path / name, _json(content))


def seed_folder(path: str | Path, seed: int) -> Path:
    """The folder of one run of several seeds in ``path``."""
    return Path(path) / f"seed-{seed}"


def runs_below(path: str | Path) -> list[Path]:
    """The runs of a folder that holds those of several seeds, in their order; none of any other."""
    folder = RunFolder(path)
    if not folder.config_file.is_file() or folder.config().get("command") != OF_SEEDS:
        return []
    found = [run for run in folder.path.glob("seed-*") if run.name.removeprefix("seed-").isdecimal() and run.is_dir()]
    return sorted(found, key=lambda run: int(run.name.removeprefix("seed-")))


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()


def _size(value: Any) -> int:
    """Bytes of the tensors in nested dicts and lists."""
    if isinstance(value, Tensor):
        return value.nbytes
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return sum(map(_size, items))


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())[:120]
    return f"lacks {text}" if isinstance(error, KeyError) else text or type(error).__name__
