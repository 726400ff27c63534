"""What a person is told of a failure, in one line."""

from __future__ import annotations

import errno

import torch

# What torch says where it has no memory; the CPU's allocator has no type of its own for it.
_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


def reason(error: Exception) -> str | None:
    """One line for wrong input, a file that cannot be read or written, and a lack of memory; None for anything else,
    which is a fault of the program."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space is left on the disk ({error.filename or text}); what was saved before is there"
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and any(words in text for words in _NO_MEMORY)
    ):
        return f"out of memory: a smaller --batch needs less ({text[:160]}); what was saved before is there"
    if isinstance(error, (ValueError, TypeError, OSError)):
        return text
    return None
