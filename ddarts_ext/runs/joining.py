"""How the processes that torchrun has started find each other."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, NoReturn, cast

import torch

from ddarts_ext.runs import exchange, interrupts
from ddarts_ext.runs.checkpoint import digest
from ddarts_ext.runs.ranks import ALONE, Ranks, being, current

TIMEOUT = timedelta(minutes=10)
"""A rank that does not answer for so long is lost. One that has ended is known to be lost at once."""
_MOMENT = 5.0
"""Seconds for which a rank that fails waits for its connections to close, and the first one for others that fail."""
_store: Any = None
"""What all ranks can write to, as long as its process is there."""
_failing = 0
"""How many ranks end by an error, this one among them; 0 where none does."""


def started() -> Ranks:
    """What torchrun, or another starter that sets the same variables, says of this process. Raises ValueError."""
    said = {name: os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")}
    if said["RANK"] is None or said["WORLD_SIZE"] is None or "MASTER_ADDR" not in os.environ:
        return ALONE
    try:
        rank, world = int(said["RANK"]), int(said["WORLD_SIZE"])
        local, beside = int(said["LOCAL_RANK"] or rank), int(said["LOCAL_WORLD_SIZE"] or world)
    except ValueError:
        raise ValueError(f"ranks: RANK, WORLD_SIZE and LOCAL_RANK must be whole numbers, got {said}") from None
    return Ranks(rank, world, local, beside) if world > 1 else ALONE


@contextmanager
def joined() -> Iterator[Ranks]:
    """Within it, runs are those of all processes that torchrun has started. Does nothing for a single one.

    A process group that the program has made before must have gloo for tensors on the CPU.
    """
    global _store, _failing
    found = started()
    if not found.several or current().several:
        yield current()
        return
    import torch.distributed as distributed
    from torch.distributed.rendezvous import rendezvous

    if not distributed.is_available():
        raise ValueError("ranks: torch must be built with torch.distributed for several ranks, got one without")
    from torch.distributed.distributed_c10d import PrefixStore

    cuda = torch.cuda.is_available() and distributed.is_nccl_available()
    mine = not distributed.is_initialized()
    if mine:
        with exchange.answered():
            store, rank, world = next(cast(Any, rendezvous("env://", timeout=TIMEOUT)))
            distributed.init_process_group(
                "cpu:gloo,cuda:nccl" if cuda else "gloo",
                store=PrefixStore("ddarts", store),
                rank=rank,
                world_size=world,
                timeout=TIMEOUT,
            )
        _store = PrefixStore("ddarts_said", store)
    try:
        with being(found):
            yield found
    except BaseException as error:
        _failing = found.world - isinstance(error, exchange.RankLost)  # one that was killed says nothing
        raise
    if mine:  # after an error the others may be gone, and nobody waits for them
        distributed.destroy_process_group()


def left() -> bool:
    """Whether an error has ended what this process did with others."""
    return _failing > 0


def end(code: int) -> NoReturn:
    """End this process, which has done what there was to do.

    After an error among several ranks threads of the process group are still at work, on tensors that Python knows.
    One that lets a tensor go while Python is finalised is ended by it in the midst of C++, which aborts the process:
    so this one ends before that, as soon as what was registered with :mod:`atexit` has run. The rank that holds what
    all have said waits a moment for the others.
    """
    if left():
        interrupts.ignore()
        _await_others()
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # nobody may be reading it any more
                stream.flush()
        os._exit(code)
    sys.exit(code)


def _await_others() -> None:
    if _store is None:
        return
    _leave()
    with suppress(RuntimeError):
        ended, until = _store.add("ended", 1), time.monotonic() + _MOMENT
        while started().first and ended < _failing and time.monotonic() < until:
            time.sleep(0.02)
            ended = _store.add("ended", 0)


def _leave() -> None:
    """Close the connections, by which others that wait for this rank alone find that it ends. In a thread: where one of
    them neither answers nor ends this takes for ever."""
    from torch import distributed

    leaving = threading.Thread(target=distributed.destroy_process_group, daemon=True)
    leaving.start()
    leaving.join(_MOMENT)


def said_already(line: str) -> bool:
    """Whether another rank has said this line; what all find wrong is said once."""
    if _store is None:
        return False
    try:
        return int(_store.add(digest(line), 1)) > 1
    except RuntimeError:
        return False
