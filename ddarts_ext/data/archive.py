"""Arrays out of a .npz file that somebody else wrote: nothing is unpickled, and nothing is believed unread."""

from __future__ import annotations

import os
import stat
import zipfile
from collections.abc import Sequence
from math import prod
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np

from ddarts_ext.data.memory import available_bytes, readable

# Deflate cannot do better, so a member that claims more is a lie.
_DEFLATE_RATIO = 1032
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_arrays(path: Path, names: Sequence[str]) -> dict[str, Any]:
    """The arrays of these names. Raises ValueError in one line for whatever else the file is or claims to be."""
    wanted = f"data: {path} must be a .npz archive of plain arrays"
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for
            raise ValueError("it is no regular file")
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            missing = [name for name in names if name not in members]
            if missing:
                wanted = f"data: {path} must hold the arrays {', '.join(names)}"
                raise ValueError(f"it lacks {', '.join(missing)}")
            needed = sum(_check(archive, members[name], name) for name in names)
            if needed > available_bytes():
                raise ValueError(f"they take {readable(needed)}, and {readable(available_bytes())} are free")
            return {name: _read(archive, members[name]) for name in names}
    except Exception as error:
        # zipfile and numpy raise what they meet in a broken file: BadZipFile, zlib.error, struct.error, EOFError,
        # NotImplementedError, RuntimeError for a password, SyntaxError in a header, MemoryError.
        reason = shorten(str(error), 200) or type(error).__name__
        raise ValueError(f"{wanted}: {reason}") from error


def _check(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> int:
    """Bytes of an array, from its header alone. Raises ValueError where header and member disagree."""
    if info.flag_bits & 1:
        raise ValueError(f"{name} is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is compressed by another method than deflate")
    with archive.open(info) as file:
        try:
            reader = _HEADERS[np.lib.format.read_magic(file)]
            shape, _, dtype = reader(file)
        except Exception as error:  # as above: numpy raises what it meets
            raise ValueError(f"{name} has no array header of version 1 or 2: {error}") from error
        held = info.file_size - file.tell()
    if dtype.hasobject:
        raise ValueError(f"{name} is an object array, which only unpickling could read")
    claimed = prod(shape) * dtype.itemsize
    if any(n < 0 for n in shape) or claimed != held or info.file_size > _DEFLATE_RATIO * info.compress_size + 1024:
        raise ValueError(f"{name} claims {dtype} {list(shape)}, {claimed} bytes, which it does not hold")
    return claimed


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Any:
    with archive.open(info) as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
        file.read(1)  # the check sum is compared where the member ends
        return array
