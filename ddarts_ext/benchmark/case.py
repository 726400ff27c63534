"""One case of a benchmark: its inputs, its formula, its op, and the proof that both are equal."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

SHAPES: Mapping[str, tuple[tuple[int, int], ...]] = {
    # (channels, height = width) of the feature maps inside the cells of each supernet, in network order.
    "D-DARTS": ((16, 32), (32, 16), (64, 8)),
    "DARTOpti": ((32, 32), (64, 16), (128, 8), (256, 4)),
    "NAS-Bench-201": ((16, 32), (32, 16), (64, 8)),
}
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
TF32_TOLERANCE = TOLERANCE[torch.float16]  # which has as many bits
ROTATED_BYTES = 256 << 20  # more than the last-level cache of any GPU that the kernels are built for
LAYOUTS = {"": torch.contiguous_format, " channels-last": torch.channels_last}


def batches(device: str) -> tuple[int, ...]:
    """Batch sizes measured on this kind of device."""
    return (16,) if device == "cpu" else (64, 256)


@dataclass(frozen=True)
class Case:
    """One shape of one op.

    inputs: builds the positional arguments (tensors, lists, numbers) on the CPU in the contiguous layout; tensors that
        require grad get gradients compared and timed when ``backward`` is set. It is called once per buffer.
    reference: the eager formula. kernel: the op under test. Both return a tensor or a list/tuple of tensors.
    bytes: what the kernel must move by design (forward, plus backward where timed). flops: the operations of its
        formula, two a multiply-add; 0 where they do not matter beside the bytes.
    targets: required speed-up of the channels-last kernel over a candidate, by the candidate's name; with the key
        ``"candidate / implementation"`` that of another implementation.
    library: whether convolutions or products over channels are part of it, which TF32 changes on a GPU.
    """

    op: str
    name: str
    inputs: Callable[[], Sequence[Any]]
    reference: Callable[..., Any]
    kernel: Callable[..., Any]
    bytes: int
    backward: bool = False
    tolerance: float | None = None
    targets: Mapping[str, float] = field(default_factory=dict)
    library: bool = False
    flops: int = 0

    def __str__(self) -> str:
        return f"{self.op} {self.name}"


def place(
    inputs: Sequence[Any], device: str, layout: torch.memory_format, dtype: torch.dtype | None = None
) -> list[Any]:
    """Fresh leaves on ``device``: 4-d tensors in ``layout``, floating ones in ``dtype``; requires_grad is kept."""

    def one(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        floating = dtype if leaf.is_floating_point() else None
        moved = leaf.detach().to(device=device, dtype=floating or leaf.dtype, copy=True)
        if moved.dim() == 4:
            moved = moved.contiguous(memory_format=layout)
        return moved.requires_grad_(leaf.requires_grad)

    return [pytree.tree_map(one, item) for item in inputs]


def tensors(tree: Any) -> list[Tensor]:
    """All tensors in nested lists, tuples and dicts."""
    if type(tree) is list and all(type(leaf) is Tensor for leaf in tree):
        return tree
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


class _Fed(torch.autograd.Function):
    """One root over all outputs, whose backward hands each its gradient, as a loss does.

    ``torch.autograd.grad`` itself checks every output that it is given a gradient for: 25 us each, more than some ops.
    """

    @staticmethod
    def forward(ctx: Any, fed: Sequence[Tensor], *outputs: Tensor) -> Tensor:
        ctx.fed = fed
        return outputs[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Any, ...]:
        return None, *ctx.fed


def runner(
    function: Callable[..., Any], inputs: Sequence[Any], backward: bool
) -> Callable[[], tuple[list[Tensor], list[Tensor]]]:
    """A call that gives the outputs and, with ``backward``, the gradients of all leaves for fixed gradients of the
    outputs. What is the same every time is found here or in the first call, so that the function itself is timed."""
    leaves = [leaf for leaf in tensors(inputs) if leaf.requires_grad]
    fed: list[Tensor] = []

    def run() -> tuple[list[Tensor], list[Tensor]]:
        outputs = tensors(function(*inputs))
        if not backward:
            return outputs, []
        differentiable = [out for out in outputs if out.requires_grad]
        if not fed:
            fed.extend(_gradient_for(out) for out in differentiable)
        root = _Fed.apply(fed, *differentiable)  # type: ignore[no-untyped-call]
        return outputs, list(torch.autograd.grad(root, leaves, allow_unused=True))

    return run


def _gradient_for(out: Tensor) -> Tensor:
    return _fed(
        out.shape, out.dim() == 4 and out.is_contiguous(memory_format=torch.channels_last), out.dtype, out.device
    )


@functools.lru_cache(maxsize=64)
def _fed(shape: torch.Size, channels_last: bool, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The gradient that enters a backward: the same values in both layouts, not constant (norms send that to zero)."""
    values = torch.linspace(0.0, float(shape.numel()), shape.numel(), dtype=torch.float64).sin().view(shape)
    return values.to(device, dtype).contiguous(
        memory_format=torch.channels_last if channels_last else torch.contiguous_format
    )


Results = tuple[list[Tensor], list[Tensor]]


def exact_results(case: Case, inputs: Sequence[Any], device: str) -> Results:
    """Outputs and gradients of the reference in float64."""
    return runner(case.reference, place(inputs, device, torch.contiguous_format, torch.float64), case.backward)()


def prove(case: Case, name: str, found: Results, expected: Results, *, in_tf32: bool = False) -> None:
    """RuntimeError unless a candidate's outputs and gradients are those of the reference in float64.

    in_tf32: whether it computed products of float32 in TF32.
    """
    for what, ours, theirs in zip(("output", "gradient"), found, expected, strict=True):
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            tolerance = case.tolerance or TOLERANCE.get(a.dtype, 0.0)
            if in_tf32 and a.dtype == torch.float32:
                tolerance = max(tolerance, TF32_TOLERANCE)
            if not _close(a, b, tolerance):
                raise RuntimeError(f"bench: {case}: {what} {i} of {name} must equal the reference, but differs")


def _close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    if a is None or b is None:
        return a is b
    a, b = a.detach().double(), b.detach().double()
    finite = b.isfinite()
    if a.shape != b.shape or not torch.equal(finite, a.isfinite()) or not torch.equal(a[~finite], b[~finite]):
        return False
    scale = b[finite].abs().max().clamp_min(1e-30) if finite.any() else torch.ones(())
    return bool(((a - b)[finite].abs() <= tolerance * scale).all())
