"""mixed_sum equals batch norm on every branch followed by the weighted sum, in every dtype, layout, size and mode."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from ddarts_ext.ops.mixed_sum import mixed_sum, mixed_sum_backward_reference, mixed_sum_reference

from .tolerances import DTYPES, assert_close

LAYOUTS = ("contiguous", "channels_last", "strided")
MODES = ("batch", "given", "none")
MIXED = (torch.float32, torch.bfloat16, torch.float16)
FLOATING = "float64, float32, float16 or bfloat16"
# batch of a group, C, H, W: full lanes, folded lanes, partial lanes, tails, one pixel, one channel, empty
SHAPES = [
    (2, 16, 8, 8),
    (4, 8, 9, 9),
    (1, 20, 3, 3),
    (2, 3, 5, 7),
    (3, 5, 1, 1),
    (1, 1, 70, 70),
    (2, 33, 17, 2),
    (0, 4, 3, 3),
]


class Case(NamedTuple):
    branches: list[Tensor]
    weights: Tensor
    normalize: list[bool]
    mean: Tensor | None
    rstd: Tensor | None
    eps: float = 1e-5

    def wide(self) -> Case:
        return self._replace(branches=[x.double() for x in self.branches], weights=self.weights.double())


def lay_out(x: Tensor, layout: str) -> Tensor:
    if layout == "channels_last":
        return x.contiguous(memory_format=torch.channels_last)
    return x.mT.contiguous().mT if layout == "strided" else x


def make(shape: tuple[int, ...], count: int, groups: int, mode: str, layout: str, *dtypes: torch.dtype) -> Case:
    size = (shape[0] * groups, *shape[1:])
    branches = [lay_out((torch.randn(size) * 2 + 1).to(dtypes[k % len(dtypes)]), layout) for k in range(count)]
    given = mode == "given"
    return Case(
        branches,
        torch.randn(groups, count),
        [mode != "none" and k % 3 != 1 for k in range(count)],
        torch.randn(1, count, shape[1]) if given else None,
        torch.rand(1, count, shape[1]) + 0.5 if given else None,
    )


def check(case: Case, forward: object = None, backward: object = None) -> None:
    """Both ops against their references in float64."""
    forward = forward or torch.ops.ddarts_ext.mixed_sum
    backward = backward or torch.ops.ddarts_ext.mixed_sum_backward
    out, mean, rstd = forward(*case)
    expected = mixed_sum_reference(*case.wide())
    acc = torch.float64 if any(x.dtype == torch.float64 for x in case.branches) else torch.float32
    promoted = case.branches[0].dtype
    for x in case.branches:
        promoted = torch.promote_types(promoted, x.dtype)
    assert (out.dtype, mean.dtype, rstd.dtype) == (promoted, acc, acc)
    for actual, wanted in zip((out, mean, rstd), expected, strict=True):
        assert_close(actual, wanted)
    grad = torch.randn_like(out)
    grads, d_weights = backward(grad, *case[:3], mean, rstd, case.mean is None, True)
    wide = case.wide()
    wanted_grads, wanted_weights = mixed_sum_backward_reference(
        grad.double(), *wide[:3], *expected[1:], case.mean is None, True
    )
    for x, dx, wanted in zip(case.branches, grads, wanted_grads, strict=True):
        assert dx.dtype == x.dtype
        assert_close(dx, wanted, gradient=True)
    assert_close(d_weights, wanted_weights, gradient=True)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_reference_in_every_dtype(shape: tuple[int, ...], mode: str, layout: str) -> None:
    for dtypes in (*((dtype,) for dtype in DTYPES), MIXED):
        for groups in (1, 3):
            check(make(shape, 5, groups, mode, layout, *dtypes))


@pytest.mark.parametrize("count", [1, 35, 84, 300])
def test_any_number_of_branches(count: int) -> None:
    check(make((2, 8, 4, 4), count, 2, "batch", "channels_last", torch.float32))
    check(make((2, 3, 3, 3), count, 1, "batch", "contiguous", *MIXED))


@pytest.mark.parametrize("layout", LAYOUTS[:2])
@pytest.mark.parametrize("dtypes", [MIXED, (torch.bfloat16,)], ids=["mixed", "bfloat16"])
def test_more_branches_than_a_cache_holds(dtypes: tuple[torch.dtype, ...], layout: str) -> None:
    """They are summed a few at a time, unless the sum would be rounded in between."""
    check(make((1, 16, 64, 40), 30, 1, "batch", layout, *dtypes))


@pytest.mark.parametrize("layout", LAYOUTS[:2])
def test_equals_eager_batch_norm_and_running_statistics(layout: str) -> None:
    case = make((4, 16, 6, 6), 4, 1, "batch", layout, torch.float32)
    norms = [nn.BatchNorm2d(16, affine=False) for _ in case.branches]
    leaves = [x.clone().requires_grad_() for x in case.branches]
    weights = case.weights[0].clone().requires_grad_()
    out = mixed_sum(leaves, weights, normalize=[True] * 4)
    grad = torch.randn_like(out.out)
    ours = torch.autograd.grad(out.out, [*leaves, weights], grad)
    eager = sum(w * norm(x) for w, norm, x in zip(weights, norms, leaves, strict=True))
    theirs = torch.autograd.grad(eager, [*leaves, weights], grad)
    assert_close(out.out, eager)
    assert out.out.is_contiguous(
        memory_format=torch.channels_last if layout == "channels_last" else torch.contiguous_format
    )
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a, b, gradient=True)
    values = 4 * 6 * 6
    for k, norm in enumerate(norms):
        variance = (out.rstd[0, k].pow(-2) - 1e-5) * values / (values - 1)
        assert_close(0.1 * out.mean[0, k], norm.running_mean)
        assert_close(0.9 + 0.1 * variance, norm.running_var)


def test_groups_have_statistics_of_their_own() -> None:
    case = make((3, 8, 4, 4), 3, 3, "batch", "channels_last", torch.float32)
    together = mixed_sum(*case[:2], normalize=case.normalize)
    for g in range(3):
        part = [x[3 * g : 3 * g + 3] for x in case.branches]
        alone = mixed_sum(part, case.weights[g], normalize=case.normalize)
        assert_close(together.out[3 * g : 3 * g + 3], alone.out)
        assert_close(together.mean[g], alone.mean[0])


@pytest.mark.parametrize("layout", LAYOUTS[:2])
def test_statistics_are_stable_far_from_zero(layout: str) -> None:
    x = lay_out(torch.randn(8, 16, 32, 32, dtype=torch.float64) + 1e4, layout)
    rstd = mixed_sum([x.float()], torch.ones(1), normalize=[True]).rstd
    exact = mixed_sum([x.float().double()], torch.ones(1), normalize=[True]).rstd
    torch.testing.assert_close(rstd.double(), exact, rtol=1e-4, atol=0)


@pytest.mark.parametrize("mode", MODES)
def test_gradients_of_first_and_second_order(mode: str) -> None:
    case = make((2, 2, 2, 3), 3, 2, mode, "contiguous", torch.float64)
    leaves = [case.weights.double().requires_grad_(), *(x.requires_grad_() for x in case.branches)]

    def run(weights: Tensor, *branches: Tensor) -> Tensor:
        return mixed_sum(branches, weights, normalize=case.normalize, mean=case.mean, rstd=case.rstd).out

    assert torch.autograd.gradcheck(run, leaves)
    assert torch.autograd.gradgradcheck(run, leaves)


def test_a_tensor_may_stand_at_several_places() -> None:
    x = torch.randn(2, 8, 4, 4, requires_grad=True)
    weights = torch.tensor([0.3, 0.5, 0.2])
    once = mixed_sum([x], weights.sum()[None], normalize=[True]).out
    thrice = mixed_sum([x, x, x], weights, normalize=[True] * 3).out
    assert_close(thrice, once)
    grad = torch.randn_like(once)
    assert_close(*(torch.autograd.grad(out, x, grad)[0] for out in (thrice, once)), gradient=True)


def test_statistics_have_no_gradient() -> None:
    x = torch.randn(2, 4, 3, 3, requires_grad=True)
    result = mixed_sum([x], torch.ones(1), normalize=[True])
    assert [tensor.requires_grad for tensor in result] == [True, False, False]


def test_branches_of_one_list_may_differ_in_layout() -> None:
    case = make((2, 8, 5, 5), 4, 1, "batch", "channels_last", torch.float32)
    branches = [x.contiguous() if k % 2 else x for k, x in enumerate(case.branches)]
    assert_close(mixed_sum(branches, case.weights).out, mixed_sum(case.branches, case.weights).out)


def test_opcheck() -> None:
    case = make((2, 2, 3, 3), 2, 1, "batch", "channels_last", torch.float32)
    branches = [x.requires_grad_() for x in case.branches]
    torch.library.opcheck(torch.ops.ddarts_ext.mixed_sum, (branches, *case[1:]))
    out, mean, rstd = torch.ops.ddarts_ext.mixed_sum(*case)
    arguments = (torch.randn_like(out), branches, *case[1:3], mean, rstd, True, True)
    torch.library.opcheck(torch.ops.ddarts_ext.mixed_sum_backward, arguments)


def test_compiles_without_a_graph_break() -> None:
    def step(weights: Tensor, *branches: Tensor) -> Tensor:
        return mixed_sum(branches, weights.softmax(-1), normalize=[True, False]).out.square().sum()

    leaves = [torch.randn(2, requires_grad=True), *(torch.randn(2, 4, 3, 3, requires_grad=True) for _ in range(2))]
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    for a, b in zip(*(torch.autograd.grad(f(*leaves), leaves) for f in (compiled, step)), strict=True):
        assert_close(a, b, gradient=True)


def test_autocast_leaves_dtypes_as_they_come() -> None:
    x, y = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert mixed_sum([x, y], torch.ones(2)).out.dtype == torch.float32
        assert mixed_sum([y, y], torch.ones(2)).out.dtype == torch.bfloat16


def test_result_does_not_depend_on_the_number_of_threads() -> None:
    before = torch.get_num_threads()
    case = make((4, 24, 20, 20), 7, 2, "batch", "contiguous", torch.float32)
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            out, mean, rstd = torch.ops.ddarts_ext.mixed_sum(*case)
            grads, d_weights = torch.ops.ddarts_ext.mixed_sum_backward(out, *case[:3], mean, rstd, True, True)
            results.append([out, mean, rstd, *grads, d_weights])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


X = torch.zeros(4, 3, 2, 2)


@pytest.mark.parametrize(
    ("error", "message", "arguments", "options"),
    [
        (ValueError, "branches must have at least one tensor, got none", ([], torch.ones(0)), {}),
        (
            TypeError,
            f"branches[1] must be {FLOATING}, got int64",
            ([X, X.long()], torch.ones(2)),
            {},
        ),
        (TypeError, "branches[0] must be a tensor, got float", ([1.0], torch.ones(1)), {}),
        (ValueError, "branches[0] must be [N,C,H,W], got [4, 3]", ([X[:, :, 0, 0]], torch.ones(1)), {}),
        (ValueError, "branches[1] must be [4, 3, 2, 2], got [2, 3, 2, 2]", ([X, X[:2]], torch.ones(2)), {}),
        (ValueError, "branches[1] must be on cpu, got meta", ([X, X.to("meta")], torch.ones(2)), {}),
        (ValueError, "weights must be [K]=[1] or [G,K]=[G,1], got [2]", ([X], torch.ones(2)), {}),
        (
            TypeError,
            f"weights must be {FLOATING}, got int64",
            ([X], torch.ones(1).long()),
            {},
        ),
        (ValueError, "branches must have a batch divisible by groups=3, got 4", ([X], torch.ones(3, 1)), {}),
        (ValueError, "groups must be at least 1, got 0", ([X], torch.ones(0, 1)), {}),
        (ValueError, "normalize must have K=1 flags, got 2", ([X], torch.ones(1)), {"normalize": [True, False]}),
        (
            ValueError,
            "mean and rstd must be given together, got only mean",
            ([X], torch.ones(1)),
            {"mean": torch.ones(1, 1, 3)},
        ),
        (
            ValueError,
            "mean must be [1 or G,K,C]=[1 or 2,1,3], got [3, 1, 3]",
            ([X], torch.ones(2, 1)),
            {"mean": torch.ones(3, 1, 3), "rstd": torch.ones(1, 1, 3)},
        ),
        (
            ValueError,
            "batch statistics must have more than 1 value per channel and group, got input size [4, 3, 1, 1]",
            ([X[:, :, :1, :1]], torch.ones(4, 1)),
            {"normalize": [True]},
        ),
    ],
)
def test_errors_name_what_came(error: type[Exception], message: str, arguments: tuple, options: dict) -> None:
    device = torch.empty(0).device
    if "got meta" in message and device.type == "meta":
        pytest.skip("both are on the meta device")
    with pytest.raises(error) as raised:
        mixed_sum(*arguments, **options)
    assert str(raised.value) == f"mixed_sum: {message.replace('on cpu', f'on {device}')}"


def test_double_backward_recovers_the_epsilon_of_given_statistics() -> None:
    """The backward's reference takes rstd as a function of x whose value is the rstd that it was handed."""
    case = make((2, 3, 2, 2), 1, 1, "batch", "contiguous", torch.float64)._replace(eps=0.7)
    out, mean, rstd = mixed_sum_reference(*case)
    leaf = case.branches[0].requires_grad_()
    grads, _ = mixed_sum_backward_reference(out, [leaf], *case[1:3], mean, rstd, True, True)
    expected = torch.autograd.grad(mixed_sum([leaf], case.weights, normalize=[True], eps=0.7).out, leaf, out)
    assert_close(grads[0], expected[0], gradient=True)


@pytest.mark.parametrize("mode", MODES)
def test_emulated_cuda_equals_reference(emulated: object, mode: str) -> None:
    forward, backward = emulated.op("mixed_sum"), emulated.op("mixed_sum_backward")
    for _ in emulated.orders():
        check(make((2, 8, 4, 4), 5, 2, mode, "channels_last", *MIXED), forward, backward)
        check(make((2, 3, 4, 3), 5, 1, mode, "contiguous", torch.float32), forward, backward)
    check(make((1, 5, 3, 3), 2, 2, mode, "channels_last", torch.float64, torch.bfloat16), forward, backward)
    check(make((3, 36, 5, 5), 2, 1, mode, "channels_last", torch.float16), forward, backward)
    check(make((0, 4, 3, 3), 2, 1, mode, "contiguous", torch.float32), forward, backward)


def test_emulated_cuda_takes_any_number_of_branches(emulated: object) -> None:
    for count in (35, 300):
        case = make((1, 4, 2, 2), count, 1, "batch", "channels_last", torch.float32, torch.bfloat16)
        check(case, emulated.op("mixed_sum"), emulated.op("mixed_sum_backward"))


def test_emulated_cuda_joins_many_tiles(emulated: object) -> None:
    for _ in emulated.orders():
        case = make((9, 4, 90, 88), 2, 1, "batch", "channels_last", torch.float32)
        check(case, emulated.op("mixed_sum"), emulated.op("mixed_sum_backward"))


def test_emulated_cuda_takes_more_groups_than_a_grid_has_room_for(emulated: object) -> None:
    case = make((1, 1, 1, 1), 1, 65_537, "none", "contiguous", torch.float32)
    check(case, emulated.op("mixed_sum"), emulated.op("mixed_sum_backward"))


def test_emulated_cuda_stays_within_its_tensors(emulated: object) -> None:
    emulated.check_addresses(
        "mixed_sum",
        """
for shape in ((2, 5, 3, 3), (2, 8, 4, 4)):
    for layout in (torch.contiguous_format, torch.channels_last):
        xs = [torch.randn(shape).to(d).contiguous(memory_format=layout) for d in (torch.float32, torch.bfloat16) * 3]
        arguments = (xs, torch.randn(2, 6), [True, False] * 3)
        out, mean, rstd = ops.mixed_sum(*arguments, None, None, 1e-5)
        ops.mixed_sum_backward(out, *arguments, mean, rstd, True, True)
""",
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_emulated_cuda_reads_some_channels_of_an_image_as_they_are(emulated: object, dtype: torch.dtype) -> None:
    """Branches and the gradient, in packets and value by value."""
    forward, backward = emulated.op("mixed_sum"), emulated.op("mixed_sum_backward")
    for channels, first in ((4, 4), (4, 3), (3, 2)):
        wide = [
            torch.randn(4, 3 * channels, 5, 6).to(dtype).contiguous(memory_format=torch.channels_last) for _ in range(4)
        ]
        images = [image[:, first : first + channels] for image in wide]
        plain = [image.contiguous(memory_format=torch.channels_last) for image in images]
        weights, flags = torch.rand(2, 3).to(torch.promote_types(dtype, torch.float32)), [True, False, True]
        mixed = [plain[0], *images[1:3]]
        for _ in emulated.orders():
            want, got = (forward(branches, weights, flags, None, None, 1e-5) for branches in (plain[:3], mixed))
            wanted, found = (
                backward(grad, branches, weights, flags, want[1], want[2], True, True)
                for grad, branches in ((plain[3], plain[:3]), (images[3], mixed))
            )
            for a, b in zip((*got, *found[0], found[1]), (*want, *wanted[0], wanted[1]), strict=True):
                assert torch.equal(a, b) if first % 4 == 0 else torch.allclose(a, b, rtol=1e-2, atol=1e-2)
                assert a.stride() == b.stride()
