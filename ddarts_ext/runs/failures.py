"""What a person is told of a failure, in one line."""

from __future__ import annotations

import difflib
import errno
import re

import torch

LONGEST = 1000
"""Characters of a line: a value that was refused may be of any length."""
_ENDING = 100
"""Of them at the end of a longer one, where what was given stands."""

# What torch says where it has no memory; the CPU's allocator has no type of its own for it.
_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")
_ONE_OF = re.compile(r"one of (?P<known>[\w.-]+(?:, [\w.-]+)+)(?:, or [^,]+)?, got '(?P<got>[^']{1,60})'")


def reason(error: Exception) -> str | None:
    """One line for wrong input, a file that cannot be read or written, and a lack of memory; None for anything else,
    which is a fault of the program."""
    whole = " ".join(str(error).split()) or type(error).__name__
    text = whole if len(whole) <= LONGEST else f"{whole[: LONGEST - _ENDING]}...{whole[-_ENDING:]}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space is left on the disk ({error.filename or text}); what was saved before is there"
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and any(words in text for words in _NO_MEMORY)
    ):
        return f"out of memory: a smaller --batch needs less ({text[:160]}); what was saved before is there"
    if isinstance(error, (ValueError, TypeError, OSError)):
        return text + did_you_mean(whole[: 10 * LONGEST])
    return None


def did_you_mean(text: str) -> str:
    """What to add to ``... must be one of A, B, C, got 'D'``: the one of them that D resembles most, if it does."""
    found = _ONE_OF.search(text)
    if found is None:
        return ""
    known = {name.lower(): name for name in found["known"].split(", ")}
    near = difflib.get_close_matches(found["got"].lower(), known, n=1, cutoff=0.7)
    return f"; did you mean {known[near[0]]!r}?" if near else ""
