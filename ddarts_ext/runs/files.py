"""Files that are written whole or not at all, as durably as the file system can."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

# What a file system answers that does not know an operation; anything else (EIO, ENOSPC) is a failure.
_UNKNOWN = {
    errno.EINVAL,
    errno.ENOSYS,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.ENOTTY,
    errno.EBADF,
    errno.EISDIR,
    errno.EPERM,
    errno.EACCES,
}
# What one answers that does not rename onto a file that is there, or that somebody reads.
_OCCUPIED = {errno.EEXIST, errno.EACCES, errno.EPERM, errno.EBUSY, errno.ETXTBSY}


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of ``path`` in one step when it is complete: a reader, or a process killed at any
    moment, finds the old file or the new one. The umask decides who may read it.

    A link stays, and the file that it leads to is replaced. What is no file (a pipe, a terminal, /dev/null) is written
    to as it is. Where the file system cannot rename onto a file that is there, the content is written over it. Raises
    OSError.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file() and not path.is_dir():
        with open(path, "wb") as file:
            yield file
        return
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except OSError as error:  # of the file that was asked for
        raise OSError(error.errno, error.strerror, str(path)) from None
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            sync(handle)
        take_place(temporary, path)
    except BaseException as error:
        if isinstance(error, OSError) and error.errno and error.filename is None:
            error.filename = str(path)  # a full disk says nothing of the file
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def check_target(name: str, path: Path) -> None:
    """ValueError, before any work is done, unless a file can be written to ``path``; missing folders can be made."""
    if path.is_dir():
        raise ValueError(f"{name} must be a file, got the folder {path}")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"{name} must be in a folder that can be written to, got {path}")


def write_whole(path: Path, content: bytes) -> None:
    """Write ``content`` as :func:`replacing` does."""
    with replacing(path) as file:
        file.write(content)


def is_leftover(path: Path, name: str) -> bool:
    """Whether ``path`` is what a killed process was writing to ``name``; it never got its name."""
    return path.name.startswith(f".{name}.") and not path.is_dir()


def sync(handle: int) -> None:
    """Have an open file on the disk, where the file system knows how. Raises OSError if that fails."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise


def take_place(source: Path, target: Path) -> None:
    """Rename ``source`` to ``target``, whatever is there."""
    try:
        os.replace(source, target)
        return
    except OSError as error:
        if error.errno not in _OCCUPIED or not target.exists():
            raise
    try:
        target.unlink()
        source.rename(target)
    except OSError:
        shutil.copyfile(source, target)
        with suppress(OSError):
            source.unlink()


def _sync_folder(folder: Path) -> None:
    """A rename must survive a power cut; many file systems, and Windows, do not let a folder be synchronised."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        with suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)
