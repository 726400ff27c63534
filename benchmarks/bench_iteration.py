"""What an epoch of a search is made of, on one network: a weight step, and an architecture step with contributions.

The D-DARTS supernet (8 cells, C=16). Candidates: ``eager`` and ``eager channels-last`` (plain PyTorch; contributions by
N + 1 forwards and N backwards, as published) and ``kernel channels-last`` (one pass, exact gradients); on a CPU also
``kernel values`` (one pass, contributions by value) and ``kernel plain`` (no contributions). On a GPU also
``graphed``: what a search runs, batches and figures included, each step replayed as a CUDA graph; and all in TF32 at
the first batch size, with launches, the share of time in which the GPU waits, and the allocator's peak. That all give
the same is compared first, as in ``bench_ablation.py``. ``bench_compiled_step.py`` has ``torch.compile``.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import nullcontext

import torch
from torch import Tensor

from ddarts_ext.benchmark import Row, neighbour
from ddarts_ext.benchmark.kernels import profiled, tf32
from ddarts_ext.benchmark.timing import interleave
from ddarts_ext.data import Augmentation, Dataset, MemorySplit
from ddarts_ext.data.batches import permuted, redrawn
from ddarts_ext.runs.graphs import own_stream
from ddarts_ext.search import Searcher
from ddarts_ext.search.captured import CapturedIterations

CANDIDATES = ("eager", "eager channels-last", "kernel channels-last")
FEWER = {"kernel values": "none", "kernel plain": "plain"}  # the kernels with less than exact gradients
GRAPHED = "graphed"
WHAT = ("weight step", "architecture step", "iteration")


def batch_sizes(device: str) -> tuple[int, ...]:
    return (16,) if device == "cpu" else (64, 256, 128)


def candidates(size: int, device: str, in_tf32: bool) -> tuple[str, ...]:
    """What is measured at a batch size. Eager takes seconds a step on a GPU: there each way of it once."""
    if device == "cpu":
        return (*CANDIDATES, *FEWER)
    if size == batch_sizes(device)[0]:
        return (*CANDIDATES[1:], GRAPHED) if in_tf32 else (*CANDIDATES, GRAPHED)
    return (GRAPHED, *CANDIDATES[2:])


def steps_of(candidate: str, size: int, device: str) -> dict[str, Callable[[], None]]:
    """The steps of one candidate, on one network and one optimiser of each kind."""
    search_step, ablation = neighbour(__file__, "bench_search_step"), neighbour(__file__, "bench_ablation")
    eager = candidate.startswith("eager")
    name = candidate if eager else "kernel channels-last"
    net = search_step.network(name, device)
    images, labels, weights = search_step.batch(name, size, device)
    given = ablation.Setting(net, torch.logit(weights), images, labels)
    weight_step: Callable[[], None] = search_step.step_of(net, name, size, device)
    # capturable: its counter of steps stays on the device
    alphas = torch.optim.Adam([given.table], lr=3e-4, betas=(0.5, 0.999), capturable=device != "cpu")

    def architecture_step() -> None:
        found: list[Tensor] = ablation.STEPS["naive" if eager else FEWER.get(candidate, "exact")](given)
        given.table.grad = found[1]
        alphas.step()

    def iteration() -> None:
        architecture_step()
        weight_step()

    return dict(zip(WHAT, (weight_step, architecture_step, iteration), strict=True))


def graphed_steps(size: int, device: str) -> dict[str, Callable[[], None]]:
    """The steps of a search on its own images, captured; each runs twice before it is replayed."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (4 * size, 3, 32, 32), generator=generator, dtype=torch.uint8)
    split = MemorySplit(images, torch.arange(4 * size) % 10)
    how = Augmentation(crop_padding=4, flip=True)
    names = tuple("abcdefghij")
    dataset = Dataset("noise", split, split, names, (32, 32), 3, (0.5,) * 3, (0.25,) * 3, how)
    searcher = Searcher(dataset, "ddarts", device=device, batch=size, graphs="on")
    config = searcher.config

    def failed(error: Exception) -> None:
        raise error

    with own_stream(searcher.device):
        state = searcher._start()  # also finds how much memory contributions may take
        state.net.train()
        stepper = searcher.strategy.stepper(state, config.method)
        iterations = CapturedIterations(stepper, searcher.dataset, config, failed)
        part = torch.arange(2 * size)
        rows = permuted(part, size, state.order), redrawn(part, size, 2, state.order)
        iteration = next(iterations.epoch(*rows, number=0, decides=True))
        for _ in range(2):
            iteration()

    def weight_step() -> None:
        iterations.weight_step(size, drawn=True)

    def architecture_step() -> None:
        iterations.architecture_step(size, size, 0, True)

    return dict(zip(WHAT, (weight_step, architecture_step, iteration), strict=True))


def rows_of(
    name: str,
    size: int,
    steps: dict[str, Callable[[], None]],
    device: str,
    seconds: float,
    known: dict[str, float],
    least_peak: int = 0,
) -> Iterator[Row]:
    """A row of every step. known: milliseconds by step and candidate, which grows. least_peak: bytes that were taken
    when the steps were captured, as a replay allocates nothing."""
    slow = device != "cpu" and name.startswith("eager")  # seconds, and 100,000 launches
    for what, step in steps.items():
        if slow and what == "architecture step":
            continue
        case = f"{what} [{size},3,32,32]"
        if device != "cpu":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        rounds = {"warmup": 1, "least": 2, "lead": 0} if slow else {"warmup": 2, "least": 3, "lead": 1}
        if device == "cpu":
            rounds["warmup"] = 1
        values = interleave({name: step}, device, seconds, **rounds)[name]
        median = statistics.median(values)
        known[f"{case} {name}"] = median
        speedup = {other: known[f"{case} {other}"] / median for other in CANDIDATES[:2] if f"{case} {other}" in known}
        quartiles = statistics.quantiles(values, n=4)
        bounds = (quartiles[0], quartiles[2])
        peak, launches, idle = None, None, None
        if device != "cpu":
            peak = max(least_peak, torch.cuda.max_memory_allocated())
            if not slow or what == "weight step":
                seen = profiled(step)
                launches, idle = seen.launches, max(0.0, 1 - seen.busy_ms / median)
        yield Row(
            "iteration", case, name, median, bounds, len(values), None, None, speedup, {}, peak,
            launches, idle, images=size,
        )  # fmt: skip


def measure(device: str, *, seconds: float = 1.0, **_: object) -> Iterator[Row]:
    """Rows as they are known; each candidate alone, so that peaks are its own."""
    neighbour(__file__, "bench_ablation").compare(device)
    known: dict[str, float] = {}
    failed: Exception | None = None
    for size in batch_sizes(device):
        both = (False, True) if device != "cpu" and size == batch_sizes(device)[0] else (False,)
        for in_tf32 in both:
            for candidate in candidates(size, device, in_tf32):
                name = candidate + (" tf32" if in_tf32 else "")
                with tf32(in_tf32) if device != "cpu" else nullcontext():
                    if candidate != GRAPHED:
                        yield from rows_of(name, size, steps_of(candidate, size, device), device, seconds, known)
                    elif failed is None:
                        try:
                            torch.cuda.reset_peak_memory_stats()
                            steps = graphed_steps(size, device)
                            peak = torch.cuda.max_memory_allocated()
                            yield from rows_of(name, size, steps, device, seconds, known, peak)
                            del steps
                        except Exception as error:  # the rows of the others are wanted all the same
                            failed = error
    if failed is not None:
        raise failed
