"""A part of a file that is read as a file: a member of an archive that nobody unpacks."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO


@dataclass(frozen=True, slots=True)
class Member:
    """``size`` bytes of the file ``shard`` from ``offset``; ``path`` is what they are called in there."""

    shard: Path
    path: str
    offset: int
    size: int

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    def __str__(self) -> str:
        return f"{self.shard}:{self.path}"

    def read_from(self, file: BinaryIO) -> BinaryIO:
        """These bytes of the open ``file`` as a file of their own, of which no more is read than is asked for."""
        return io.BufferedReader(_Part(file, self))


class _Part(io.RawIOBase):
    def __init__(self, file: BinaryIO, member: Member) -> None:
        self.file, self.member, self.place = file, member, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self.place, os.SEEK_END: self.member.size}[whence]
        if origin + offset < 0:
            raise ValueError("it leads before its beginning")
        self.place = origin + offset
        return self.place

    def readinto(self, buffer: Any) -> int:
        count = max(0, min(len(buffer), self.member.size - self.place))
        self.file.seek(self.member.offset + self.place)
        content = self.file.read(count)
        buffer[: len(content)] = content
        self.place += len(content)
        return len(content)
