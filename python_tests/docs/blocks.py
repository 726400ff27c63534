"""The code of a page, in its order."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CODE = ("bash", "python")
OTHER = ("text", "json", "mermaid", "cpp", "yaml")
_NOT_RUN = re.compile(r"<!-- not run: (.+) -->")


@dataclass(frozen=True)
class Block:
    """line: of its fence, from 1. reason: why it is not run, empty where it is."""

    page: str
    line: int
    language: str
    text: str
    reason: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """README.md and everything in docs/."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [path.relative_to(ROOT).as_posix() for path in found]


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page. Raises ValueError for one whose language is not said."""
    lines, found = (ROOT / page).read_text(encoding="utf-8").splitlines(), []
    start = None
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if start is None:
            start = number
            continue
        language = lines[start][3:].strip()
        if language not in (*CODE, *OTHER):
            raise ValueError(
                f"{page}:{start + 1}: language must be one of {', '.join((*CODE, *OTHER))}, got {language!r}"
            )
        mark = _NOT_RUN.fullmatch(lines[start - 1]) if start else None
        text = "\n".join(lines[start + 1 : number]) + "\n"
        found.append(Block(page, start + 1, language, text, mark[1] if mark else ""))
        start = None
    if start is not None:
        raise ValueError(f"{page}:{start + 1}: the block has no end")
    return found


def runnable(page: str) -> list[Block]:
    """Those that a reader would run."""
    return [block for block in blocks(page) if block.language in CODE and not block.reason]
