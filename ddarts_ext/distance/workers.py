"""Measurements in this process, or in several at once."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from typing import Any

import torch

from ddarts_ext.data import Dataset, load
from ddarts_ext.distance.protocol import Protocol, Task, measure


def results(
    tasks: Sequence[Task], protocol: Protocol, dataset: Dataset, device: str, jobs: int
) -> Iterator[tuple[Task, float]]:
    """Every task with its accuracy in percent, as they come."""
    if jobs == 1 or len(tasks) < 2:
        for task in tasks:
            yield task, measure(task, protocol, dataset, device)
        return
    # Spawned, not forked: neither CUDA nor the thread pools of torch survive a fork.
    context = get_context("spawn")
    workers = min(jobs, len(tasks))
    threads = max(1, (os.cpu_count() or 1) // workers)
    pool = ProcessPoolExecutor(workers, context, _begin, (context.Value("i", 0), protocol, device, threads))
    try:
        futures = {pool.submit(_measure, task): task for task in tasks}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool as error:
        raise ChildProcessError(
            "score-ops: a worker process has ended (out of memory?); the same command continues, try fewer --jobs"
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


_worker: dict[str, Any] = {}
"""What a worker process keeps between tasks."""


def _begin(counter: Any, protocol: Protocol, device: str, threads: int) -> None:
    """In a new worker: its number picks its GPU, its images are loaded once."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    with counter.get_lock():
        number = counter.value
        counter.value += 1
    if device == "cuda":
        device = f"cuda:{number % torch.cuda.device_count()}"
    _worker.update(protocol=protocol, device=device, dataset=load(protocol.data))


def _measure(task: Task) -> float:
    return measure(task, _worker["protocol"], _worker["dataset"], _worker["device"])


def _end_with_parent() -> None:
    """A parent that is killed cannot end its workers, which would wait for tasks for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
