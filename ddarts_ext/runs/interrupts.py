"""Ctrl-C and SIGTERM: a step that is under way ends first, so that what it changes is whole and can be saved.

The library leaves signals alone; the command calls :func:`listen`. What a run does between steps is interrupted at
once, and so is a step by a second signal.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = tuple(number for number in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, number))


class Interrupted(KeyboardInterrupt):  # as the class it is a kind of
    """A signal; ``number`` says which."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _Held:
    """Of the main thread, where alone Python handles signals."""

    depth = 0
    waiting = 0


def listen() -> None:
    """Have signals raise :class:`Interrupted`; in the main thread alone."""
    for name in SIGNALS:
        number = getattr(signal, name)
        # What was told to ignore a signal (nohup) goes on ignoring it.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _received)


def _received(number: int, frame: FrameType | None) -> None:
    if _Held.depth and not _Held.waiting:
        _Held.waiting = number
        return
    _Held.waiting = 0
    raise Interrupted(number)


@contextmanager
def held() -> Iterator[None]:
    """Within it a first signal waits, and is raised at its end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _Held.depth += 1
    try:
        yield
    finally:
        _Held.depth -= 1
    if not _Held.depth and _Held.waiting:
        number, _Held.waiting = _Held.waiting, 0
        raise Interrupted(number)


def answer(any_rank: Callable[[bool], bool]) -> None:
    """Raise :class:`Interrupted` where a signal waits here or on another rank. any_rank: whether what is said here is
    true on any of them.

    Within :func:`held`, between two steps: so all ranks end after the same step, and what they had is whole.
    """
    waiting = _Held.waiting if threading.current_thread() is threading.main_thread() else 0
    if any_rank(bool(waiting)):
        _Held.waiting = 0
        raise Interrupted(waiting or signal.SIGTERM)


def ignore() -> None:
    """From here on signals are ignored: what there was to do is done, and the process ends."""
    if threading.current_thread() is threading.main_thread():
        for name in SIGNALS:
            signal.signal(getattr(signal, name), signal.SIG_IGN)


@contextmanager
def ignored() -> Iterator[None]:
    """Processes that start within it ignore Ctrl-C from their first moment on: the parent answers it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
