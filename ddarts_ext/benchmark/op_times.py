"""Times of ops and of whole networks on a device, taken in turn, as benchmarks take them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from ddarts_ext.benchmark.kernels import captured, tf32
from ddarts_ext.benchmark.report import device_stamp
from ddarts_ext.benchmark.timing import interleave
from ddarts_ext.costs.latency import LatencyTable, OpTime, places
from ddarts_ext.costs.sizes import NetworkSizes, OpPlace
from ddarts_ext.genotype import Genotype
from ddarts_ext.genotype.random import random_genotype
from ddarts_ext.nn.cell import Normed
from ddarts_ext.nn.forward_pass import Pass
from ddarts_ext.nn.primitives import EVALUATION, primitive

RESTS = 8
"""Networks whose time without their ops is that of the rest."""
_EVALUATION = Pass.default(training=False)


def measure_ops(sizes: NetworkSizes, device: str, *, batch: int, seconds: float, seed: int = 0) -> LatencyTable:
    """Times of every op at every place of the networks of ``sizes``, and of some networks, in about so many seconds."""
    every = places(sizes)
    drawn = architectures(sizes, RESTS, seed)
    steps = {str(place): _op(place, batch, device) for place in every}
    steps |= {f"network {number}": _network(sizes, one, batch, device) for number, one in enumerate(drawn)}
    times = timed(steps, device, seconds)
    table = LatencyTable(sizes, batch, device_stamp(device), {place: times[str(place)] for place in every}, 0.0)
    costs = table.costs()
    rests = [times[f"network {number}"].median_ms - costs.linear(one) for number, one in enumerate(drawn)]
    return LatencyTable(sizes, batch, table.device, table.ops, statistics.fmean(rests), tuple(rests))


@dataclass(frozen=True)
class Comparison:
    """Predicted and measured milliseconds of some networks. correlation: Pearson's; rank_correlation: Spearman's;
    mean_error: the mean of |predicted - measured| / measured."""

    predicted_ms: tuple[float, ...]
    measured_ms: tuple[float, ...]
    correlation: float
    rank_correlation: float
    mean_error: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def compared(table: LatencyTable, genotypes: Sequence[Genotype], device: str, *, seconds: float) -> Comparison:
    """What a table predicts for these architectures, beside the measured time of one batch in their networks."""
    steps = {str(number): _network(table.sizes, one, table.batch, device) for number, one in enumerate(genotypes)}
    times = timed(steps, device, seconds)
    measured, costs = [times[name].median_ms for name in steps], table.costs()
    predicted = [costs.of(one) for one in genotypes]
    return Comparison(
        tuple(predicted),
        tuple(measured),
        statistics.correlation(predicted, measured),
        statistics.correlation(_ranks(predicted), _ranks(measured)),
        statistics.fmean(abs(a - b) / b for a, b in zip(predicted, measured, strict=True)),
    )


def _ranks(values: Sequence[float]) -> list[float]:
    order = sorted(values)
    return [order.index(value) + (order.count(value) - 1) / 2 for value in values]


def architectures(sizes: NetworkSizes, count: int, seed: int) -> list[Genotype]:
    """Drawn uniformly, as ``--method random`` draws them."""
    generator = torch.Generator().manual_seed(seed)
    return [
        random_genotype(sizes.space, sizes.order, generator=generator, reductions=sizes.reductions)
        for _ in range(count)
    ]


def timed(steps: Mapping[str, Callable[[], object]], device: str, seconds: float) -> dict[str, OpTime]:
    """The time of each step: on a CPU as it runs, on a GPU as a CUDA graph, in full float32 as benchmarks have it."""
    on_gpu = device != "cpu"
    with torch.inference_mode(), tf32(False) if on_gpu else nullcontext():
        graphs = {name: captured([step]) if on_gpu else None for name, step in steps.items()}
        run = {name: _quiet(step) if (graph := graphs[name]) is None else graph.replay for name, step in steps.items()}
        taken = interleave(run, device, seconds)
    found = {}
    for name, values in taken.items():
        low, high = statistics.quantiles(values, n=4)[::2]
        timer = "clock" if graphs[name] is None else "graph"
        found[name] = OpTime(statistics.median(values), (low, high), len(values), timer)
    return found


def _quiet(step: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        step()

    return run


def _op(place: OpPlace, batch: int, device: str) -> Callable[[], object]:
    op = primitive(place.op, place.channels, place.stride, EVALUATION)
    assert op is not None
    module = Normed(op, place.channels, EVALUATION).to(device).eval()
    return _call(module, (batch, place.channels, place.height, place.width), device)


def _network(sizes: NetworkSizes, genotype: Genotype, batch: int, device: str) -> Callable[[], object]:
    return _call(sizes.build(genotype, device).eval(), (batch, *sizes.image), device)


def _call(module: nn.Module, shape: tuple[int, ...], device: str) -> Callable[[], object]:
    images = torch.randn(shape, device=device).contiguous(memory_format=torch.channels_last)
    return lambda: module(images, _EVALUATION)
