"""mixed_edges equals the ops of DARTS in plain torch, each with its batch norm, weighted and summed into nodes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from ops.filters import LAYOUTS, normal
from ops.tolerances import DTYPES, assert_close
from torch import Tensor

from ddarts_ext.ops import AVERAGE, MAXIMUM, SKIP, Edges, MixedEdges, mixed_edges
from ddarts_ext.ops._library import has_kernel
from ddarts_ext.ops._mixed_edges_reference import mixed_edges_backward_reference
from ddarts_ext.ops.mixed_edges import composed

OPS = {"max": MAXIMUM, "average": AVERAGE, "skip": SKIP, "normed skip": SKIP}
ALL = ("max", "average", "skip", "sep 3", "sep 5", "dil 3", "dil 5")
CHOICES: list[list[tuple[str, ...]]] = [
    [("skip",)], [("normed skip",)], [("max",), ("average",)], [("average", "skip")], [("dil 5",)], [("sep 3",)],
    [("skip",), ("sep 7",)], [("normed skip", "max"), ("normed skip", "skip")],
]  # fmt: skip
"""Ops of one or two edges, each with a path of its own through the kernels."""


@dataclass(frozen=True)
class Problem:
    x: Tensor
    edges: Edges
    depthwise: list[Tensor]
    pointwise: list[Tensor]
    weights: Tensor
    previous: list[Tensor]
    statistics: tuple[Tensor, ...] = ()

    def tensors(self) -> list[Tensor]:
        """What has a gradient."""
        return [self.x, self.weights, *self.depthwise, *self.pointwise, *self.previous]

    def of(self, tensors: Sequence[Tensor]) -> Problem:
        """The same with other tensors."""
        found = iter(tensors)
        x, weights = next(found), next(found)
        groups = [[next(found) for _ in group] for group in (self.depthwise, self.pointwise, self.previous)]
        return replace(self, x=x, weights=weights, depthwise=groups[0], pointwise=groups[1], previous=groups[2])

    def double(self) -> Problem:
        made = self.of([t.detach().double().requires_grad_() for t in self.tensors()])
        return replace(made, statistics=tuple(t.double() for t in self.statistics))

    def run(self, function: Callable[..., MixedEdges] = mixed_edges) -> MixedEdges:
        given = dict(zip(("mean", "rstd", "inner_mean", "inner_rstd"), self.statistics, strict=False))
        return function(
            self.x, self.edges, self.depthwise, self.pointwise, self.weights, previous=self.previous, **given
        )


def problem(
    shape: Sequence[int],
    entries: Sequence[Sequence[str]] = (ALL, ALL[:5], ("dil 3", "max", "normed skip")),
    dtype: torch.dtype = torch.float32,
    *,
    stride: int = 1,
    groups: int = 1,
    given: bool = False,
    previous: bool = True,
) -> Problem:
    """entries: the ops of every edge by name; the identity is left out at stride 2, one average pool has no norm."""
    named = [(t, name) for t, names in enumerate(entries) for name in names if stride == 1 or OPS.get(name) != SKIP]
    kernels = [(name[:3], int(name[4:])) for _, name in named if name not in OPS]
    seconds = tuple(f for f, (kind, _) in enumerate(kernels) if kind == "sep")
    numbers = iter(range(len(kernels)))
    edges = Edges(
        targets=tuple(t for t, _ in named),
        kinds=tuple(OPS[name] if name in OPS else next(numbers) for _, name in named),
        normalize=tuple(name != "skip" and (t, name) != (1, "average") for t, name in named),
        dilations=tuple(2 if kind == "dil" else 1 for kind, _ in kernels),
        seconds=seconds,
        stride=stride,
    )
    channels, sizes = shape[1], [k for _, k in kernels] + [kernels[f][1] for f in seconds]
    depthwise = [normal((channels, 1, k, k), torch.float64, 10 + i) / k for i, k in enumerate(sizes)]
    pointwise = [normal((channels, channels, 1, 1), torch.float64, 40 + i) / channels**0.5 for i in range(len(sizes))]
    size = (*shape[:2], -(-shape[2] // stride), -(-shape[3] // stride))
    tables = [normal((groups, rows, channels), torch.float64, 90 + i) for i, rows in
              enumerate((len(named), len(named), len(seconds), len(seconds)))]  # fmt: skip
    statistics = [table.mul(0.3) if i % 2 == 0 else table.mul(0.3).abs().add(0.5) for i, table in enumerate(tables)]
    return Problem(
        normal(shape, dtype, 0),
        edges,
        [weight.to(dtype) for weight in depthwise],
        [weight.to(dtype) for weight in pointwise],
        normal((groups, len(named)), dtype, 80),
        [normal(size, dtype, 70 + t) for t in range(len(entries))] if previous else [],
        tuple(table.float() if dtype != torch.float64 else table for table in statistics) if given else (),
    )


def definition(p: Problem) -> list[Tensor]:
    """The sums, in plain torch, op after op and group after group."""
    groups, stride = p.weights.shape[0], p.edges.stride
    mean, rstd, inner_mean, inner_rstd = p.statistics or (None,) * 4

    def norm(y: Tensor, g: int, k: int, means: Tensor | None, rstds: Tensor | None) -> Tensor:
        if means is None or rstds is None:
            return F.batch_norm(y, None, None, training=True, eps=1e-5)
        return (y - means[g, k][:, None, None]) * rstds[g, k][:, None, None]

    def stage(y: Tensor, i: int, dilation: int, step: int) -> Tensor:
        kernel = p.depthwise[i].shape[-1]
        y = F.conv2d(y.relu(), p.depthwise[i], None, step, dilation * (kernel - 1) // 2, dilation, y.shape[1])
        return F.conv2d(y, p.pointwise[i])

    def branch(x: Tensor, kind: int, g: int) -> Tensor:
        if kind == MAXIMUM:
            return F.max_pool2d(x.contiguous(), 3, stride, 1)  # contiguous: see test_pool3x3.py
        if kind == AVERAGE:
            return F.avg_pool2d(x.contiguous(), 3, stride, 1, count_include_pad=False)
        if kind == SKIP:
            return x
        y = stage(x, kind, p.edges.dilations[kind], stride)
        if kind in p.edges.seconds:
            s = p.edges.seconds.index(kind)
            y = stage(norm(y, g, s, inner_mean, inner_rstd), len(p.edges.dilations) + s, 1, 1)
        return y

    sums: list[list[Tensor]] = [[] for _ in range(p.edges.sums)]
    for g, x in enumerate(p.x.chunk(groups)):
        totals: list[Any] = [tensor.chunk(groups)[g] for tensor in p.previous] or [0] * p.edges.sums
        for k, (target, kind, flag) in enumerate(zip(p.edges.targets, p.edges.kinds, p.edges.normalize, strict=True)):
            y = branch(x, kind, g)
            totals[target] = totals[target] + p.weights[g, k] * (norm(y, g, k, mean, rstd) if flag else y)
        for into, total in zip(sums, totals, strict=True):
            into.append(total)
    return [torch.cat(parts) for parts in sums]


def compare(p: Problem) -> None:
    """Sums and all gradients against the definition in float64."""
    ours = p.of([t.detach().requires_grad_() for t in p.tensors()])
    exact = p.double()
    got, want = ours.run().sums, definition(exact)
    for a, b in zip(got, want, strict=True):
        assert a.dtype == p.x.dtype
        assert_close(a, b)
    grads = [normal(w.shape, p.x.dtype, 100 + i) for i, w in enumerate(want)]
    found = torch.autograd.grad(got, ours.tensors(), grads)
    expected = torch.autograd.grad(want, exact.tensors(), [g.double() for g in grads])
    for a, b in zip(found, expected, strict=True):
        assert_close(a, b, p.x.dtype, gradient=True)


def in_layout(p: Problem, layout: torch.memory_format) -> Problem:
    previous = [t.contiguous(memory_format=layout) for t in p.previous]
    return replace(p, x=p.x.contiguous(memory_format=layout), previous=previous)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_equals_eager_in_every_layout_and_setting(dtype: torch.dtype, layout: str) -> None:
    for stride, groups, given in itertools.product((1, 2), (1, 3), (False, True)):
        compare(
            in_layout(problem((6, 16, 9, 8), dtype=dtype, stride=stride, groups=groups, given=given), LAYOUTS[layout])
        )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype.itemsize == 2], ids=str)
def test_low_precision_equals_the_other_ops_one_after_another(dtype: torch.dtype, layout: str) -> None:
    """Outputs that are rounded before their norm may differ by a rounding, times what the norm makes of it."""
    for stride in (1, 2):
        p = in_layout(problem((4, 16, 12, 8), dtype=dtype, stride=stride, previous=False), LAYOUTS[layout])
        ours, other = (p.of([t.detach().requires_grad_() for t in p.tensors()]) for _ in range(2))
        got = ours.run().sums
        want = composed(other.x, p.edges, other.depthwise, other.pointwise, other.weights, [], (None,) * 4, 1e-5).sums
        for a, b in zip(got, want, strict=True):
            assert a.dtype == dtype
            assert_close(a, b)
        grads = [normal(w.shape, dtype, 100 + i) for i, w in enumerate(want)]
        pairs = zip(*(torch.autograd.grad(s, q.tensors(), grads) for s, q in ((got, ours), (want, other))), strict=True)
        for a, b in pairs:
            assert_close(a, b, gradient=True)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [(1, 2), (3, 7), (4, 4), (8, 8), (9, 17), (40, 33)], ids=str)
def test_any_size_and_number_of_channels(size: tuple[int, int], layout: str) -> None:
    for channels, stride in itertools.product((1, 5, 8, 24), (1, 2)):
        compare(in_layout(problem((2, channels, *size), dtype=torch.float64, stride=stride), LAYOUTS[layout]))


@pytest.mark.parametrize("entries", CHOICES, ids=str)
def test_any_choice_of_ops(entries: list[tuple[str, ...]]) -> None:
    for previous, given in itertools.product((False, True), repeat=2):
        p = problem((4, 16, 8, 8), entries, torch.float64, previous=previous, given=given, groups=2)
        compare(in_layout(p, torch.channels_last))


def test_more_edges_than_a_cache_holds() -> None:
    """Edges are computed one by one where they are large, together where they are small."""
    compare(in_layout(problem((8, 16, 64, 48), dtype=torch.float32), torch.channels_last))


def test_strided_tensors_and_slices_of_gradients() -> None:
    p = problem((4, 16, 10, 12), dtype=torch.float64)
    weights = normal((1, 2 * p.weights.shape[1]), torch.float64, 81)[:, ::2]
    wide = normal((4, 32, 12, 12), torch.float64, 5)
    compare(replace(p, x=wide[:, 3:19, 1:-1], weights=weights))
    q = in_layout(p, torch.channels_last)
    leaves = [t.requires_grad_() for t in q.tensors()]
    upstream = normal((4, 48, 10, 12), torch.float64, 6).contiguous(memory_format=torch.channels_last)
    sliced = torch.autograd.grad(torch.cat(q.run().sums, 1), leaves, upstream)
    dense = torch.autograd.grad(q.run().sums, leaves, [part.clone() for part in upstream.split(16, 1)])
    for a, b in zip(sliced, dense, strict=True):
        assert torch.equal(a, b)


def test_results_keep_the_layout_and_statistics_are_those_of_mixed_sum() -> None:
    for layout in LAYOUTS.values():
        p = in_layout(problem((6, 16, 8, 8), groups=3), layout)
        p.x.requires_grad_()
        got, want = p.run(), composed(p.x, p.edges, p.depthwise, p.pointwise, p.weights, p.previous, (None,) * 4, 1e-5)
        (gradient,) = torch.autograd.grad(sum(s.square().sum() for s in got.sums), p.x)  # type: ignore[arg-type]
        assert all(t.is_contiguous(memory_format=layout) for t in (*got.sums, gradient))
        for a, b in zip(got[1:], want[1:], strict=True):
            assert_close(a, b)


def test_unused_sums_get_no_gradient() -> None:
    p = problem((2, 8, 5, 5), dtype=torch.float64)
    leaves = [t.requires_grad_() for t in p.tensors()]
    found = torch.autograd.grad(p.run().sums[1].square().sum(), leaves, allow_unused=True)
    want = torch.autograd.grad(definition(p)[1].square().sum(), leaves, allow_unused=True)
    assert any(a is not None for a in found)
    for a, b in zip(found, want, strict=True):
        if a is not None or b is not None:  # zeros and none are the same
            like = b if a is None else a
            assert_close(*(torch.zeros_like(like) if t is None else t for t in (a, b)), gradient=True)  # type: ignore[arg-type, misc]


def test_only_what_is_asked_for_has_a_gradient() -> None:
    for wanted in ("x", "weights", "depthwise"):
        p = problem((2, 8, 5, 5), dtype=torch.float64)
        leaf = {"x": p.x, "weights": p.weights, "depthwise": p.depthwise[0]}[wanted].requires_grad_()
        (found,) = torch.autograd.grad(sum(s.square().sum() for s in p.run().sums), leaf)  # type: ignore[arg-type]
        (want,) = torch.autograd.grad(sum(s.square().sum() for s in definition(p)), leaf)  # type: ignore[arg-type]
        assert_close(found, want, gradient=True)


def test_empty_batch() -> None:
    p = problem((0, 8, 5, 5))
    leaves = [t.requires_grad_() for t in p.tensors()]
    sums = p.run().sums
    assert sums[0].shape == (0, 8, 5, 5)
    assert all(not gradient.any() for gradient in torch.autograd.grad([s.sum() for s in sums], leaves))


@pytest.mark.parametrize("settings", [{}, {"stride": 2}, {"groups": 2}, {"given": True}], ids=str)
def test_first_and_second_derivatives(settings: dict[str, Any]) -> None:
    p = problem((4, 3, 4, 3), [("max", "skip", "sep 3"), ("average", "dil 3")], torch.float64, **settings)
    leaves = [t.requires_grad_() for t in p.tensors()]

    def function(*t: Tensor) -> tuple[Tensor, ...]:
        return tuple(p.of(t).run().sums)

    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves, fast_mode=True)


def operands(p: Problem) -> tuple[list[Any], list[Any]]:
    """The settings of the op's schema that come after its tensors, without and with what only the forward takes."""
    e = p.edges
    lists = [list(e.targets), list(e.kinds), list(e.dilations), list(e.seconds), list(e.normalize)]
    return [*lists, e.stride], [*lists, e.sums, e.stride, *(p.statistics or (None,) * 4), 1e-5]


def test_opcheck() -> None:
    forward, backward = torch.ops.ddarts_ext.mixed_edges, torch.ops.ddarts_ext.mixed_edges_backward
    for layout, (stride, groups) in itertools.product(LAYOUTS.values(), ((1, 1), (2, 2))):
        p = in_layout(
            problem((4, 8, 5, 4), [("max", "skip", "sep 3"), ("dil 3",)], stride=stride, groups=groups), layout
        )
        q = p.of([t.detach().requires_grad_() for t in p.tensors()])
        settings, all_settings = operands(p)
        torch.library.opcheck(forward.default, (q.x, q.previous, q.depthwise, q.pointwise, q.weights, *all_settings))
        tensors, *tables = forward(p.x, p.previous, p.depthwise, p.pointwise, p.weights, *all_settings)
        grads, saved = [torch.randn_like(s) for s in tensors[: p.edges.sums]], tensors[p.edges.sums :]
        for wanted in ((True, True, True), (True, False, False), (False, True, False)):
            torch.library.opcheck(
                backward.default,
                (grads, p.x, p.depthwise, p.pointwise, p.weights, saved, *settings, *tables, True, *wanted),
            )


def test_compiles_without_graph_breaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    p = problem((2, 8, 6, 6), dtype=torch.float64)

    def loss(x: Tensor) -> Tensor:
        found = replace(p, x=x).run()
        return sum((total.sin().sum() for total in found.sums), found.mean.sum())

    leaf = p.x.requires_grad_()
    expected = torch.autograd.grad(loss(leaf), leaf)[0]
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    assert_close(torch.autograd.grad(compiled(leaf), leaf)[0], expected)


def test_autocast_is_that_of_the_ops_it_is_made_of() -> None:
    p = problem((2, 8, 6, 6))
    with torch.autocast(torch.get_default_device().type, torch.bfloat16):
        got = p.run().sums
        want = composed(p.x, p.edges, p.depthwise, p.pointwise, p.weights, p.previous, (None,) * 4, 1e-5).sums
        again = replace(p, previous=got).run().sums
    for a, b, more in zip(got, want, again, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
        assert more.dtype == a.dtype


def test_autocast_takes_images_of_its_dtype_as_they_are() -> None:
    """One op, with filters in the dtype that they have: nothing is cast."""
    p = problem((2, 8, 6, 6))
    low = replace(p, x=p.x.bfloat16(), previous=[total.bfloat16() for total in p.previous])
    leaves = [low.x.requires_grad_(), *(w.requires_grad_() for w in (*p.depthwise, *p.pointwise))]
    with torch.autocast(torch.get_default_device().type, torch.bfloat16):
        got = low.run()
        with_wide = replace(low, previous=p.previous).run()
    plain = low.run()
    for a, b, wide in zip(got.sums, plain.sums, with_wide.sums, strict=True):
        assert a.dtype == torch.bfloat16
        assert torch.equal(a, b)
        assert_close(wide.bfloat16(), a)
    gradients = torch.autograd.grad(sum(total.float().square().sum() for total in got.sums), leaves)
    assert [g.dtype for g in gradients] == [leaf.dtype for leaf in leaves]


def test_second_derivatives_are_the_same_within_autocast() -> None:
    p = problem((2, 8, 6, 6), dtype=torch.float32)
    leaves = [p.x.requires_grad_(), *(w.requires_grad_() for w in p.pointwise)]
    device = torch.get_default_device().type

    def second() -> Sequence[Tensor]:
        with torch.autocast(device, enabled=False):
            sums = p.run().sums
        first = torch.autograd.grad(sum(total.square().sum() for total in sums), leaves, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), leaves)

    plain = second()
    with torch.autocast(device, torch.bfloat16):
        within = second()
    for a, b in zip(within, plain, strict=True):
        assert_close(a, b, gradient=True)


@pytest.mark.skipif(not has_kernel("mixed_edges", "cpu"), reason="torch's products promise no such thing")
def test_result_does_not_depend_on_the_number_of_threads() -> None:
    p = in_layout(problem((5, 24, 24, 24)), torch.channels_last)
    leaves = [t.requires_grad_() for t in p.tensors()]
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 2):
            torch.set_num_threads(threads)
            sums = p.run().sums
            gradients = torch.autograd.grad(sum(s.square().sum() for s in sums), leaves)  # type: ignore[arg-type]
            results.append([*sums, *gradients])
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


@pytest.mark.parametrize("settings", [{}, {"stride": 2, "groups": 2}, {"given": True}], ids=str)
def test_backward_reference_and_composition_are_the_definition(settings: dict[str, Any]) -> None:
    p = problem((4, 3, 6, 5), dtype=torch.float64, **settings)
    leaves = [t.requires_grad_() for t in p.tensors()]
    want = definition(p)
    statistics = p.statistics or (None,) * 4
    for a, b in zip(
        composed(p.x, p.edges, p.depthwise, p.pointwise, p.weights, p.previous, statistics, 1e-5).sums,
        want,
        strict=True,
    ):
        assert_close(a, b)
    grads = [torch.randn_like(s) for s in want]
    expected = torch.autograd.grad(want, leaves[: len(leaves) - len(p.previous)], grads)
    own, all_settings = operands(p)
    with torch.no_grad():
        tensors, *tables = torch.ops.ddarts_ext.mixed_edges(
            p.x, p.previous, p.depthwise, p.pointwise, p.weights, *all_settings
        )
    for context in (torch.no_grad, torch.enable_grad):  # from what was saved, and computed anew
        with context():
            found = mixed_edges_backward_reference(
                grads, p.x, p.depthwise, p.pointwise, p.weights, tensors[p.edges.sums :], *own, *tables,
                not p.statistics, True, True, True,
            )  # fmt: skip
        for a, b in zip(found, expected, strict=True):
            assert_close(a, b, gradient=True)


KINDS_MUST_BE = r"kinds must be SKIP, MAXIMUM, AVERAGE and each of len\(dilations\)"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kinds": (-4,)}, rf"{KINDS_MUST_BE}=0 convolutions once, got \(-4,\)"),
        ({"kinds": (1,), "dilations": (1,)}, rf"{KINDS_MUST_BE}=1 convolutions once, got \(1,\)"),
        ({"targets": (1,)}, r"targets must be 1 numbers of sums, each from 0 on used, got \(1,\)"),
        ({"normalize": ()}, "normalize must be 1 flags, got 0"),
        ({"kinds": (0,), "dilations": (3,)}, r"dilations must be 1 or 2, got \(3,\)"),
        ({"seconds": (0,)}, r"seconds must be different ones of \[\], got \(0,\)"),
        ({"stride": 0}, "stride must be 1 or 2, got 0"),
        ({"stride": 2}, "kinds must not have SKIP at stride 2"),
    ],
)
def test_edges_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    settings: dict[str, Any] = {"targets": (0,), "kinds": (SKIP,), "normalize": (False,)}
    with pytest.raises(ValueError, match=f"^Edges: {message}"):
        Edges(**(settings | changes))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"x": torch.ones(4, 8, 5)}, ValueError, r"x must be \[N,C,H,W\], got \[4, 8, 5\]"),
        ({"x": torch.ones(4, 8, 5, 5).long()}, TypeError, "x must be float64, float32"),
        ({"weights": torch.ones(1, 3)}, ValueError, r"weights must be \[G,K\]=\[G,2\], got \[1, 3\]"),
        ({"weights": torch.ones(3, 2)}, ValueError, "x must have a batch divisible by groups=3, got 4"),
        ({"pointwise": []}, ValueError, "depthwise and pointwise must be one a stage, 2, got 2 and 0"),
        (
            {"pointwise": [torch.ones(8, 8, 1, 1), torch.ones(4, 8, 1, 1)]},
            ValueError,
            r"pointwise\[1\] must be \[C,C,1,1\]=\[8,8,1,1\], got \[4, 8, 1, 1\]",
        ),
        ({"depthwise": [torch.ones(8, 1, 4, 4)] * 2}, ValueError, r"depthwise\[0\] must be \[C,1,k,k\]"),
        ({"previous": [torch.ones(4, 8, 5, 5)] * 2}, ValueError, "previous must be T=1 tensors or none, got 2"),
        (
            {"previous": [torch.ones(4, 8, 5, 4)]},
            ValueError,
            r"previous\[0\] must be \[4, 8, 5, 5\] float32 on \S+, got \[4, 8, 5, 4\] float32 on \S+",
        ),
        ({"mean": torch.ones(1, 2, 8)}, ValueError, "mean, rstd, inner_mean and inner_rstd must be given together"),
    ],
)
def test_errors_say_what_was_expected_and_what_came(
    changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    p = problem((4, 8, 5, 5), [("skip", "sep 3")], previous=False)
    settings = {"x": p.x, "depthwise": p.depthwise, "pointwise": p.pointwise, "weights": p.weights, "edges": p.edges}
    with pytest.raises(error, match=f"^mixed_edges: {message}"):
        mixed_edges(**(settings | changes))
