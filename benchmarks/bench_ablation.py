"""Architecture steps with the marginal contributions of all 8 cells, against a plain architecture step.

Candidates: ``plain`` (one forward, one backward), ``none`` and ``exact`` (contributions in one pass, values alone or
with exact gradients), ``naive`` (values by N + 1 forwards and N backwards, as published, on the same kernels) and
``eager naive`` (the same in plain PyTorch, contiguous). Losses and gradients are compared first, in float64. Memory is
what a fresh process's peak rises above its start, in two steps; on a GPU it is the allocator's peak.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddarts_ext.benchmark import Row, batches, neighbour
from ddarts_ext.benchmark.timing import interleave, peak_resident_bytes
from ddarts_ext.search.contributions.marginal import contributions

CELLS = 8
CANDIDATES = ("plain", "none", "exact", "naive", "eager naive")
TIME_LIMITS = {"none": 3.2, "exact": 6.0}  # times plain, at most
MEMORY_LIMITS = {"none": 1.1, "exact": 1.5}
SPEEDUPS = {"naive": 2.5, "eager naive": 20.0}  # of ``none``, at least


@dataclass(frozen=True)
class Setting:
    """Everything a step needs; all candidates share weights and data."""

    net: nn.Module
    table: Tensor
    images: Tensor
    labels: Tensor


def setting(candidate: str, size: int, device: str) -> Setting:
    name = "eager" if candidate == "eager naive" else "kernel channels-last"
    module = neighbour(__file__, "bench_search_step")
    images, labels, weights = module.batch(name, size, device)
    return Setting(module.network(name, device), torch.logit(weights), images, labels)


def plain_step(given: Setting) -> list[Tensor]:
    """Loss and the gradient of the table; the weights are constants of this step, as in the search."""
    leaf = given.table.detach().requires_grad_(True)
    given.net.requires_grad_(False)
    loss = F.cross_entropy(given.net(given.images, torch.sigmoid(leaf)), given.labels)
    (gradient,) = torch.autograd.grad(loss, leaf)
    given.net.requires_grad_(True)
    return [loss.detach(), gradient]


def one_pass_step(given: Setting, gradient: str, inactive: str = "bypass") -> list[Tensor]:
    found = contributions(
        given.net,  # type: ignore[arg-type]
        given.table,
        torch.sigmoid,
        given.images,
        given.labels,
        gradient=gradient,  # type: ignore[arg-type]
        inactive=inactive,  # type: ignore[arg-type]
    )
    return [found.loss, found.full_gradient, found.without]


def naive_step(given: Setting) -> list[Tensor]:
    """The published scheme: a forward with other weights per removed cell, and a backward of the full loss per cell."""
    given.net.requires_grad_(False)
    leaf = given.table.detach().requires_grad_(True)
    weights = torch.sigmoid(leaf)
    loss = F.cross_entropy(given.net(given.images, weights), given.labels)
    without = []
    with torch.no_grad():
        for cell in range(CELLS):
            removed = weights.index_fill(0, torch.tensor([cell], device=weights.device), 0.5)
            without.append(F.cross_entropy(given.net(given.images, removed), given.labels))
    for remaining in reversed(range(CELLS)):
        (gradient,) = torch.autograd.grad(loss, leaf, retain_graph=remaining > 0)
    given.net.requires_grad_(True)
    return [loss.detach(), gradient, torch.stack(without)]


STEPS: dict[str, Callable[[Setting], list[Tensor]]] = {
    "plain": plain_step,
    "none": lambda given: one_pass_step(given, "none"),
    "exact": lambda given: one_pass_step(given, "exact"),
    "naive": naive_step,
    "eager naive": naive_step,
}


def compare(device: str) -> None:
    """RuntimeError unless, in float64, every candidate gives the same loss, gradient and losses without each cell."""
    found = {}
    for name in CANDIDATES:
        given = setting(name, 2, device)
        given = Setting(copy.deepcopy(given.net).double(), given.table.double(), given.images.double(), given.labels)
        found[name] = one_pass_step(given, name, "half") if name in TIME_LIMITS else STEPS[name](given)
    for name, tensors in found.items():
        for i, (ours, theirs) in enumerate(zip(tensors, found["eager naive"], strict=False)):
            if not float((ours - theirs).abs().max()) <= 1e-7 * float(theirs.abs().max()):
                raise RuntimeError(f"bench: ablation: tensor {i} of {name} must equal the naive scheme's, but differs")


def peak_bytes(candidate: str, size: int, device: str) -> int:
    """What two steps add to the peak of a fresh process."""
    command = [sys.executable, __file__, "--peak", candidate, "--batch", str(size), "--device", device]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def measure(device: str, *, seconds: float = 1.0, **_: object) -> list[Row]:
    """Rows of all candidates; ``required`` holds what ``none`` and ``exact`` must reach."""
    rows = []
    compare(device)
    for size in batches(device):
        steps = {name: _timed(setting(name, size, device), name) for name in CANDIDATES}
        slow = {name: steps.pop(name) for name in [*steps] if name.startswith("eager")}
        times = interleave(steps, device, seconds, warmup=1, least=3)
        times |= interleave(slow, device, 0.0, warmup=0, least=1)  # a minute a step
        medians = {name: statistics.median(values) for name, values in times.items()}
        for name, values in times.items():
            speedup = {other: medians[other] / medians[name] for other in medians if other != name}
            required = {"plain": 1 / TIME_LIMITS[name]} if name in TIME_LIMITS else {}
            required |= SPEEDUPS if name == "none" else {}
            bounds = (min(values), max(values))
            peak = peak_bytes(name, size, device)
            case = f"D-DARTS 8 cells C=16 [{size},3,32,32]"
            rows.append(
                Row("ablation", case, name, medians[name], bounds, len(values), None, None, speedup, required, peak)
            )
    return rows


def _timed(given: Setting, name: str) -> Callable[[], None]:
    def step() -> None:
        STEPS[name](given)

    return step


def report(rows: list[Row]) -> None:
    """Time and memory of every candidate against the plain step, and what was required."""
    by_name = {row.candidate: row for row in rows}
    plain = by_name["plain"]
    for name, row in by_name.items():
        time_ratio = row.median_ms / plain.median_ms
        memory_ratio = (row.peak_bytes or 0) / (plain.peak_bytes or 1)
        limit = f"  (at most {TIME_LIMITS[name]}x, {MEMORY_LIMITS[name]}x)" if name in TIME_LIMITS else ""
        print(f"{name:12} {row.median_ms:9.0f} ms {time_ratio:6.2f}x {memory_ratio:6.2f}x memory{limit}")
    for name, least in SPEEDUPS.items():
        ratio = by_name[name].median_ms / by_name["none"].median_ms
        print(f"none over {name}: {ratio:.1f}x (at least {least}x)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peak", choices=CANDIDATES, help="print the peak of one candidate and nothing else")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    if options.peak is None:
        report(measure(options.device, seconds=options.seconds))
        return
    given = setting(options.peak, options.batch, options.device)
    before = peak_resident_bytes()
    for _ in range(2):
        STEPS[options.peak](given)
    after = peak_resident_bytes()
    print(torch.cuda.max_memory_allocated() if options.device != "cpu" else after - before)


if __name__ == "__main__":
    main()
