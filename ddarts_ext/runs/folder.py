"""A run is a folder: config.json, history.jsonl, genotype.json, checkpoint.pt, each written whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch

Record = dict[str, Any]


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of ``path`` in one step when it is complete: a reader, or a process killed at any
    moment, finds the old file or the new one."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    # The rename itself must survive a power cut.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_whole(path: Path, content: bytes) -> None:
    """Write ``content`` as :func:`replacing` does."""
    with replacing(path) as file:
        file.write(content)


class RunFolder:
    """Files of one run. ``command`` is who writes, for the errors: ``search`` or ``train``."""

    def __init__(self, path: str | Path, command: str = "search") -> None:
        self.path = Path(path)
        self.command = command
        self.config_file = self.path / "config.json"
        self.history_file = self.path / "history.jsonl"
        self.genotype_file = self.path / "genotype.json"
        self.checkpoint_file = self.path / "checkpoint.pt"

    def open(self, config: Mapping[str, Any], *, resume: bool, changeable: Sequence[str] = ()) -> Record | None:
        """Start a run, or take one up again: the checkpoint, or None where there is none yet.

        Raises ValueError if the folder holds a run and ``resume`` is false, or one with another configuration; the
        fields in ``changeable`` may differ.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        for leftover in self.path.glob(".*.*"):
            # What a killed process was writing; it never got its name.
            if any(leftover.name.startswith(f".{file.name}.") for file in self._files()):
                leftover.unlink(missing_ok=True)
        if self.config_file.exists():
            if not resume:
                raise ValueError(f"{self.command}: out must be a new folder, or use --resume, got a run in {self.path}")
            self._compare(config, changeable)
        write_whole(self.config_file, _json(config))
        return self.checkpoint()

    def _files(self) -> tuple[Path, ...]:
        return (self.config_file, self.history_file, self.genotype_file, self.checkpoint_file)

    def _compare(self, config: Mapping[str, Any], changeable: Sequence[str]) -> None:
        old, new = self.config(), json.loads(_json(config))
        for key in dict.fromkeys([*new, *old]):
            if key not in changeable and old.get(key) != new.get(key):
                raise ValueError(
                    f"{self.command}: {key} must be {old.get(key)!r} to resume the run in {self.path}, "
                    f"got {new.get(key)!r}"
                )

    def config(self) -> Record:
        """The configuration the run was started with. Raises FileNotFoundError, ValueError or TypeError."""
        if not self.config_file.is_file():
            raise FileNotFoundError(f"{self.command}: {self.path} must be the folder of a run, but has no config.json")
        try:
            config = json.loads(self.config_file.read_text())
        except ValueError as error:
            raise ValueError(f"{self.command}: {self.config_file} is not valid JSON: {error}") from error
        if not isinstance(config, dict):
            raise TypeError(f"{self.command}: {self.config_file} must hold an object, got {type(config).__name__}")
        return config

    def history(self) -> list[Record]:
        """One record per finished epoch."""
        if not self.history_file.is_file():
            return []
        return [json.loads(line) for line in self.history_file.read_text().splitlines() if line]

    def write_history(self, records: Sequence[Record]) -> None:
        write_whole(self.history_file, b"".join(json.dumps(r, allow_nan=True).encode() + b"\n" for r in records))

    def checkpoint(self) -> Record | None:
        """The last checkpoint on the CPU; read with ``weights_only``, so that nothing in it can run."""
        if not self.checkpoint_file.is_file():
            return None
        try:
            loaded: Record = torch.load(self.checkpoint_file, map_location="cpu", weights_only=True)
        except Exception as error:
            raise ValueError(
                f"{self.command}: {self.checkpoint_file} is not a checkpoint that can be read: {error}"
            ) from error
        return loaded

    def save(self, checkpoint: Record, records: Sequence[Record]) -> None:
        """History first: killed in between, the run resumes at the older checkpoint and cuts the history back to it."""
        self.write_history(records)
        with replacing(self.checkpoint_file) as file:
            torch.save(checkpoint, file)

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        write_whole(self.path / name, _json(content))


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()
