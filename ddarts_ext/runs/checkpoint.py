"""Checkpoints that know what they hold: a digest of their content, of the configuration and of the history they are of.

A file of tensors has no check sum that is read: a bit that has flipped on a disk gives other weights, silently.
"""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor

from ddarts_ext.runs.files import replacing, sync, take_place

Record = dict[str, Any]
FORMAT = 2
_FIELDS = ("format", "config", "history", "content", "digest")


class DamagedError(ValueError):
    """A checkpoint that cannot be continued from."""


def digest(value: Any) -> str:
    """Digest of plain data and tensors, in hexadecimal: of values, dtypes and shapes, not of layout or device."""
    found = hashlib.blake2b(digest_size=16)
    _add(found, value)
    return found.hexdigest()


def _add(found: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        plain = value.detach().cpu().contiguous()
        found.update(f"tensor {plain.dtype} {list(plain.shape)};".encode())
        found.update(plain.reshape(-1).view(torch.uint8).numpy())
    elif isinstance(value, Mapping):
        found.update(f"mapping {len(value)};".encode())
        for key, item in value.items():
            _add(found, key)
            _add(found, item)
    elif isinstance(value, (list, tuple)):
        found.update(f"list {len(value)};".encode())
        for item in value:
            _add(found, item)
    elif isinstance(value, float):
        found.update(b"float" + struct.pack("<d", value))
    elif value is None or isinstance(value, (bool, int, str)):
        text = f"{type(value).__name__} {value};".encode("utf-8", "surrogatepass")
        found.update(f"{len(text)} ".encode() + text)
    else:
        raise TypeError(f"checkpoint: content must be plain data and tensors, got {type(value).__name__}")


def write(path: Path, content: Mapping[str, Any], *, config: str, history: str, previous: Path | None) -> None:
    """Write ``content`` with its digest; what is at ``path`` becomes ``previous``, once the new one is whole."""
    whole = {"format": FORMAT, "config": config, "history": history, "content": content}
    whole["digest"] = digest([config, history, content])
    with replacing(path) as file:
        writer = _Writer(file)
        try:
            torch.save(whole, cast("IO[bytes]", writer))
        except RuntimeError as error:
            # torch's writer says "unexpected pos" of a disk that is full.
            raise writer.failure or OSError(f"{path} cannot be written: {error}") from error
        if previous is not None and path.exists():
            file.flush()
            sync(file.fileno())
            take_place(path, previous)


class _Writer(io.RawIOBase):
    """Keeps the error that torch's writer hides."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file = file
        self.failure: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.failure = error
            raise

    def flush(self) -> None:
        self._file.flush()


def read(path: Path) -> Record:
    """What :func:`write` wrote, with tensors on the CPU; read with ``weights_only``, so that nothing in it can run.

    Raises DamagedError for what is no checkpoint, or is not what was written; OSError where it cannot be read.
    """
    with open(path, "rb") as file:
        if file.read(4) != b"PK\x03\x04":
            raise DamagedError(f"{path} is not a checkpoint")
        file.seek(0)
        try:
            whole = torch.load(file, map_location="cpu", weights_only=True)
        except MemoryError:
            raise
        except Exception as error:
            raise DamagedError(f"{path} is damaged: {_first_line(error)}") from error
    if not isinstance(whole, dict) or whole.get("format") != FORMAT:
        found = whole.get("format") if isinstance(whole, dict) else type(whole).__name__
        raise DamagedError(f"{path} must have format {FORMAT}, got {found!r}")
    if set(whole) != set(_FIELDS) or not isinstance(whole["content"], dict):
        raise DamagedError(f"{path} must hold {', '.join(_FIELDS)}")
    try:
        right = digest([whole["config"], whole["history"], whole["content"]]) == whole["digest"]
    except (TypeError, RuntimeError) as error:
        raise DamagedError(f"{path} is damaged: {_first_line(error)}") from error
    if not right:
        raise DamagedError(f"{path} is damaged: it does not hold what was written to it")
    return whole


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0][:120] or type(error).__name__
