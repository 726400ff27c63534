"""Independent pieces of work: where they run is a :class:`Place`, this process with others of this machine, or Ray."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from ddarts_ext.runs import interrupts

Task = TypeVar("Task")
Result = TypeVar("Result")
Context = TypeVar("Context")


class Place(Protocol):
    """Where tasks run."""

    def each(
        self, tasks: Sequence[Task], work: Callable[[Task, Context], Result], begin: Callable[[str], Context]
    ) -> Iterator[tuple[Task, Result]]:
        """Every task with what ``work(task, begin(device))`` gives, as they come.

        work, begin: functions of a module, since worker processes import them; ``begin`` runs once in each process.
        Raises what a task raised, and ChildProcessError where a worker process ends.
        """
        ...

    def here(self, tasks: Sequence[Any]) -> bool:
        """Whether these tasks run in this process, one after the other."""
        ...

    def check(self, folder: Path) -> None:
        """Raise OSError where workers do not see ``folder``, in which the tasks write."""
        ...


class Processes:
    """This process, or several of this machine."""

    def __init__(self, command: str, device: str, jobs: int) -> None:
        self.command, self.device, self.jobs = command, device, jobs

    def here(self, tasks: Sequence[Any]) -> bool:
        return self.jobs == 1 or len(tasks) < 2

    def check(self, folder: Path) -> None:
        """Processes of one machine see the same."""

    def each(
        self, tasks: Sequence[Task], work: Callable[[Task, Context], Result], begin: Callable[[str], Context]
    ) -> Iterator[tuple[Task, Result]]:
        if self.here(tasks):
            context = begin(self.device)
            for task in tasks:
                yield task, work(task, context)
            return
        # Spawned, not forked: neither CUDA nor the thread pools of torch survive a fork.
        processes = get_context("spawn")
        count = min(self.jobs, len(tasks))
        threads = max(1, (os.cpu_count() or 1) // count)
        others = {process.pid for process in active_children()}
        finished = False
        shared = processes.Value("i", 0), begin, self.device, threads, count
        pool = ProcessPoolExecutor(count, processes, _begin, shared)
        try:
            with interrupts.ignored():
                futures = {pool.submit(_work, work, task): task for task in tasks}
            for future in as_completed(futures):
                yield futures[future], future.result()
            finished = True
        except BrokenProcessPool as error:
            raise ended(self.command) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            if not finished:
                # An interrupt, or an error: nobody waits for what the others are at.
                for process in active_children():
                    if process.pid not in others:
                        process.terminate()


def ended(command: str) -> ChildProcessError:
    """What is raised where a worker process is gone."""
    return ChildProcessError(
        f"{command}: a worker process has ended (out of memory?); the same command continues, try fewer --jobs"
    )


_kept: dict[str, Any] = {}
"""What a worker process keeps between tasks."""


def sharing() -> int:
    """How many processes of one piece of work take the memory of this process's GPU; 1 where it works alone."""
    return int(_kept.get("sharing", 1))


def prepare(begin: Callable[[str], Any], device: str, threads: int, share: int) -> None:
    """In a worker, once: its threads, how many share its GPU, and the context of its tasks."""
    torch.set_num_threads(threads)
    _kept["sharing"] = share
    _kept["context"] = begin(device)


def _begin(counter: Any, begin: Callable[[str], Any], device: str, threads: int, count: int) -> None:
    """In a new worker: its number picks its GPU, its context is made once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent answers it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with counter.get_lock():
        number = counter.value
        counter.value += 1
    share = 1
    if device == "cuda":
        share = -(-count // torch.cuda.device_count())
        device = f"cuda:{number % torch.cuda.device_count()}"
    prepare(begin, device, threads, share)


def _work(work: Callable[[Any, Any], Any], task: Any) -> Any:
    return work(task, _kept["context"])


def _end_with_parent() -> None:
    """A parent that is killed cannot end its workers, which would wait for tasks for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
