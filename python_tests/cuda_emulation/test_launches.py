"""Every op declares the launches that its launchers make: the emulated ones are counted, and the copies beside them."""

from __future__ import annotations

import ctypes
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
import torch
from cuda_emulation import build, cases
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ddarts_ext import ops
from ddarts_ext.ops import _convolution_launches, _edges_launches, _launches, pool3x3_readers
from ddarts_ext.ops.recurrent_node import MOST_STATES

VARIANTS = (
    (torch.float32, torch.channels_last),
    (torch.bfloat16, torch.channels_last),
    (torch.float64, torch.contiguous_format),
)


class Recorded(TorchDispatchMode):
    """Keeps the calls of this package's ops with their arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, Sequence[Any]]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        space, _, name = func._schema.name.partition("::")
        if space == "ddarts_ext":
            self.calls.append((name, args))
        return func(*args, **(kwargs or {}))


def launched(emulated: build.Emulated, name: str, args: Sequence[Any]) -> int:
    """Kernels of the emulated op, and copies and fills of values that it asks torch for."""
    op = emulated.op(name)
    library = emulated.library(name)
    library.emulation_launches.restype = ctypes.c_uint64
    before = library.emulation_launches()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as profile:
        op(*args)
    copies = [event for event in profile.events() if event.name in ("aten::copy_", "aten::zero_", "aten::fill_")]
    copies = [event for event in copies if event.cpu_parent is None or event.cpu_parent.name != "aten::zero_"]
    return int(library.emulation_launches() - before) + sum(math.prod(event.input_shapes[0]) > 0 for event in copies)


def image(*shape: int, dtype: torch.dtype = torch.float32, last: bool = True) -> Tensor:
    x = torch.randn(*shape).to(dtype)
    return x.contiguous(memory_format=torch.channels_last) if last else x


def unusual() -> Iterator[tuple[str, Sequence[Any]]]:
    """Calls of other kinds than a step's: given statistics, more than one launch takes, nothing, strided images."""
    x, strided, empty = image(2, 4, 6, 6), image(2, 4, 6, 12)[..., ::2], image(0, 4, 6, 6)
    given = torch.zeros(1, 4), torch.ones(1, 4)
    filters = [torch.randn(4, 1, 3, 3) for _ in range(70)]
    for normalize, mean, rstd in ((False, None, None), (True, None, None), (True, *given)):
        for source in (x, empty):
            yield "relu_depthwise_conv2d", (source, filters, [1] * 70, 1, normalize, mean, rstd, 2, 1e-5)
            grads = [torch.zeros_like(source) for _ in filters]
            tables = [torch.ones(2 if normalize else 0, 4)] * 2
            for wanted in ((True, True), (True, False), (False, True)):
                settings = (1, normalize, *tables, normalize and mean is None, 2, *wanted)
                yield "relu_depthwise_conv2d_backward", (grads, source, filters, [1] * 70, *settings)
    for inputs, sources in (([x], [0] * 70), ([x, strided, image(2, 4, 6, 6, last=False)], [f % 3 for f in range(70)])):
        for wanted in ((True, True), (True, False), (False, True)):
            for normalize, mean in ((False, None), (True, None), (True, torch.ones(1, len(inputs), 4))):
                points = [torch.randn(8, 4, 1, 1) for _ in filters]
                call = (inputs, filters, points, sources, [1] * 70, 1, normalize)
                yield "relu_separable_conv2d", (*call, mean, mean, 2, 1e-5)
                tables = [torch.ones(2 if normalize else 0, len(inputs), 4)] * 2
                grads = [image(2, 8, 6, 6, last=f > 1) for f in range(70)]
                settings = (*tables, normalize and mean is None, 2, *wanted)
                yield "relu_separable_conv2d_backward", (grads, *call, *settings)
    call = ([empty], filters[:2], [torch.randn(8, 4, 1, 1)] * 2, [0, 0], [1, 1], 1, False)
    yield "relu_separable_conv2d", (*call, None, None, 1, 1e-5)
    yield "relu_separable_conv2d_backward", ([empty.new_zeros(0, 8, 6, 6)] * 2, *call, *tables, False, 1, True, True)
    for weights in ([torch.randn(8, 4, 1, 1)] * 2, [torch.randn(8, 4, 1, 1), torch.randn(3, 4, 1, 1)]):
        for source in (x, strided, empty):
            channels = sum(len(weight) for weight in weights)
            yield "relu_pointwise_conv2d", (source, weights, 2)
            for wanted in ((True, True), (True, False), (False, True)):
                yield (
                    "relu_pointwise_conv2d_backward",
                    (*(image(source.shape[0], channels, 3, 3, last=False), source, weights, 2, *wanted),),
                )
    for source in (strided, empty):
        yield "pool3x3", (source, 2, True, False)
        yield "pool3x3", (source, 1, True, True)
        for stride in (1, 2):
            pooled = [source[:, :, ::stride, ::stride] for _ in range(2)]
            where = torch.zeros(pooled[0].shape, dtype=torch.uint8)
            for last in (True, False):
                yield "pool3x3_readers_backward", (pooled, pooled[:1], [source] * 3, where, 6, 6, stride, last)
                yield "pool3x3_readers_backward", ([], pooled, [image(*source.shape)], where, 6, 6, stride, last)
        yield "grouped_batch_norm", (source, torch.ones(4).double(), None, *given, 1, 1e-5, False)
        yield "grouped_batch_norm", (source, None, torch.ones(4), None, None, 1, 1e-5, True)
        rows = torch.zeros(1, 4), torch.ones(1, 4)
        for weight, batch in ((torch.ones(4).double(), False), (None, True), (None, False)):
            yield "grouped_batch_norm_backward", (source, source, weight, None, *rows, batch, 1, False)
        yield "channel_iim", ([source, source], None, None, [False, False], False)
        yield "spawn_group", (None, source, 2, 2, False)
        yield "spawn_group", (None, source, 2, 1, True)
        yield "spawn_group_backward", (source, 12, 12, 2, 2)
    yield "channel_iim", ([x] * 70 + [image(2, 4, 6, 6, last=False)], None, None, [False] * 71, True)
    for sides in ((6, 6), (1, 1)):  # channels of an image, of one pixel too
        wide = image(2, 9, *sides)
        parts = [wide[:, :4], wide[:, 4:8]]
        yield "channel_iim", ([*parts, image(2, 4, *sides)], None, None, [False] * 3, False)
        yield "mixed_sum", ([image(2, 4, *sides), *parts], torch.ones(1, 3), [False] * 3, None, None, 1e-5)
    yield from unusual_edges()
    yield "spawn_group", (strided, x, 1, 1, False)
    for rows, weights in itertools.product((torch.randn(5, 8), torch.randn(8, 5).t(), torch.randn(0, 8)), (1, 2)):
        mixing = torch.rand(2, 8)[:, : 4 * weights : weights].double()
        call = [rows] * 2, [torch.cat((rows, rows), 1)] * 2, mixing, [0, 1, 2, 3]
        yield "recurrent_node", call
        yield "recurrent_node_backward", (rows, *call)
    for count, source in ((2, strided), (100, x), (2, empty)):
        branches, weights = [source] * count, torch.rand(2 if source.shape[0] else 1, count).double()
        groups, flags = weights.shape[0], [k % 2 == 0 for k in range(count)]
        rows = torch.zeros(groups, count, 4), torch.ones(groups, count, 4)
        yield "mixed_sum", (branches, weights, flags, None, None, 1e-5)
        yield "mixed_sum", (branches, weights, flags, *rows, 1e-5)
        for settings in ((True, True), (True, False), (False, False)):
            yield "mixed_sum_backward", (source, branches, weights, flags, *rows, *settings)


def unusual_edges() -> Iterator[tuple[str, Sequence[Any]]]:
    """Few ops and more than a launch takes, into few nodes and many, tiles that are joined ahead, strided images."""
    x, strided, empty = image(2, 4, 6, 6), image(2, 4, 6, 12)[..., ::2], image(0, 4, 6, 6)
    large = image(66, 4, 24, 16, dtype=torch.float64)
    pools, convolutions = [-1, -2, -3], list(range(30))
    kinds_of = ((x, pools * 70), (strided, convolutions + pools), (empty, [0, 1, -2]), (large, [0, -1]), (x, [-1] * 3))
    for source, kinds in kinds_of:
        count, firsts = len(kinds), sum(kind >= 0 for kind in kinds)
        sums = min(count, 20)
        targets, seconds = [k % sums for k in range(count)], list(range(0, firsts, 2))
        flags = [k % 2 == 1 for k in kinds]
        filters = [torch.randn(4, 1, 3, 3) for _ in range(firsts + len(seconds))]
        points = [torch.randn(4, 4, 1, 1) for _ in filters]
        weights = torch.rand(2 if len(source) else 1, count).double()
        groups = len(weights)
        numbers = targets, kinds, [1] * firsts, seconds, flags
        given = [torch.ones(1, rows, 4) for rows in (count, count, len(seconds), len(seconds))]
        previous = [image(*source.shape, dtype=source.dtype, last=False) for _ in range(sums)]
        for before, rows in (([], [None] * 4), (previous, given)):
            yield "mixed_edges", (source, before, filters, points, weights, *numbers, sums, 1, *rows, 1e-5)
        tables = [torch.ones(groups, rows, 4) for rows in (count, count, len(seconds), len(seconds))]
        saved = [source] * (firsts + len(seconds) + 2) + [torch.zeros(source.shape, dtype=torch.uint8)]
        settings = (True, True, True, True), (False, True, False, False), (True, False, True, False), (False,) * 4
        for batch, *wanted in settings:
            call = (previous, source, filters, points, weights, saved, *numbers, 1, *tables, batch, *wanted)
            yield "mixed_edges_backward", call


@pytest.mark.parametrize(("dtype", "format_"), VARIANTS)
def test_steps_launch_what_is_declared(
    emulated: build.Emulated, dtype: torch.dtype, format_: torch.memory_format
) -> None:
    seen = set()
    for case in cases.cases(dtype, format_):
        with Recorded() as recorded:
            case.run()
        for name, args in recorded.calls:
            seen.add(name)
            declared = _launches.LAUNCHES[name](*args)
            assert declared == launched(emulated, name, args), f"{name}, {case.text}"
            assert declared > 0
    assert seen == set(_launches.LAUNCHES)


def test_unusual_calls_launch_what_is_declared(emulated: build.Emulated) -> None:
    for number, (name, args) in enumerate(unusual()):
        assert _launches.LAUNCHES[name](*args) == launched(emulated, name, args), f"{name}, call {number}"


def test_every_op_with_kernels_declares_its_launches() -> None:
    found = set()
    for path in (build.ROOT / "csrc" / "cuda").glob("*.cpp"):
        found |= set(re.findall(r'm\.impl\("(\w+)"', path.read_text()))
    assert found == set(_launches.LAUNCHES)
    assert found <= set(ops._library.defined_ops())


@pytest.mark.parametrize(
    ("header", "constant", "declared"),
    [
        ("relu_depthwise_conv2d", "kDepthwiseFilters", _convolution_launches.MOST_FILTERS),
        ("relu_separable_conv2d", "kSeparableFilters", _convolution_launches.MOST_SEPARABLE),
        ("relu_separable_conv2d", "kSeparableMomentTiles", _convolution_launches.MOST_MOMENT_TILES),
        ("mixed_sum", "kMixedBranches", _launches.MOST_BRANCHES),
        ("mixed_sum", "kMixedBranches", _convolution_launches.MOST_INPUTS),
        ("mixed_edges", "kEdgesTargets", _edges_launches.MOST_TARGETS),
        ("channel_iim", "kIimMaps", _launches.MOST_MAPS),
        ("pool3x3", "kPoolReaders", pool3x3_readers.MOST_READERS),
        ("recurrent_node", "kRecurrentRows", MOST_STATES),
    ],
)
def test_the_sizes_of_launches_are_those_of_the_kernels(header: str, constant: str, declared: int) -> None:
    text = (build.ROOT / "csrc" / "cuda" / f"{header}.h").read_text()
    assert re.search(rf"{constant} = (\d+);", text)[1] == str(declared)  # type: ignore[index]
