"""One process writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import filelock


def taken(path: Path, refusal: str, say: Callable[[str], None] = lambda line: None) -> filelock.BaseFileLock:
    """The lock of the file ``path``, which it makes and leaves there; ``release()`` gives it back, and so does the end
    of the process, however it ends.

    Raises ValueError with ``refusal`` where somebody else has it. Where the file system has no locks ``say`` is told.
    """
    lock = filelock.FileLock(path, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise ValueError(refusal) from error
    except NotImplementedError:
        say(f"{path.parent} is on a file system without locks: start no second process there")
    return lock
