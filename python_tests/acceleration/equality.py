"""Two modules side by side: outputs, gradients of first and second order, statistics, random state."""

from __future__ import annotations

import random

import torch
from ops.tolerances import GRADIENT, VALUE
from torch import Tensor, nn


def features(*scales: tuple[int, int]) -> list[Tensor]:
    return [torch.randn(3, channels, 8 * scale, 6 * scale, dtype=torch.float64) for channels, scale in scales]


def table(*shape: int) -> Tensor:
    return torch.rand(shape, dtype=torch.float64) + 0.1


def tensors(value: object) -> list[Tensor]:
    if isinstance(value, dict):
        return [entry for entry in value.values() if isinstance(entry, Tensor)]
    return [value] if isinstance(value, Tensor) else []


def leaves(arguments: list[object], dtype: torch.dtype, layout: torch.memory_format) -> list[object]:
    def leaf(x: object) -> object:
        if isinstance(x, dict):
            return {key: leaf(entry) for key, entry in x.items()}
        if not isinstance(x, Tensor):
            return x
        return x.to(dtype).clone(memory_format=layout if x.dim() == 4 else torch.preserve_format).requires_grad_()

    return [leaf(x) for x in arguments]


def run(
    module: nn.Module,
    method: str,
    arguments: list[object],
    dtype: torch.dtype = torch.float64,
    layout: torch.memory_format = torch.contiguous_format,
    second: bool = True,
) -> dict[str, list[Tensor | None]]:
    """Outputs, first and second order gradients of everything, and the statistics that are left behind."""
    torch.manual_seed(1)
    random.seed(1)
    given = leaves(arguments, dtype, layout)
    out = getattr(module, method)(*given)
    wanted = [t for value in given for t in tensors(value)] + list(module.parameters())
    cotangent = torch.randn(out.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(dtype)
    first = torch.autograd.grad((out * cotangent).sum(), wanted, create_graph=second, allow_unused=True)
    found: dict[str, list[Tensor | None]] = {"out": [out.detach()], "first": list(first)}
    if second:
        squares = [gradient.square().sum() for gradient in first if gradient is not None and gradient.requires_grad]
        found["second"] = list(torch.autograd.grad(sum(squares), wanted, allow_unused=True)) if squares else []
    found["buffers"] = [buffer.clone() for buffer in module.buffers()]
    found["random"] = [torch.get_rng_state()]
    return found


def assert_same(ours: dict[str, list[Tensor | None]], theirs: dict[str, list[Tensor | None]]) -> None:
    assert ours.keys() == theirs.keys()
    for what, expected in theirs.items():
        assert len(ours[what]) == len(expected)
        floating = [t for t in expected if t is not None and t.is_floating_point() and t.numel()]
        # Gradients that are 0 but for rounding round with the others that flow through the same sums.
        scale = max((float(t.detach().abs().max()) for t in floating), default=1.0)
        for a, b in zip(ours[what], expected, strict=True):
            if a is None or b is None:  # a second derivative that is 0 may be absent; a first one may not
                assert a is b or what == "second"
                continue
            assert a.dtype == b.dtype
            if a.is_floating_point():
                row = (VALUE if what == "out" and a.dtype == torch.float64 else GRADIENT)[a.dtype]
                torch.testing.assert_close(a, b, rtol=row.rtol, atol=row.atol * max(1.0, scale))
            else:
                assert torch.equal(a, b)


def spread(module: nn.Module) -> nn.Module:
    """Running statistics and affine parameters as after some training."""
    with torch.no_grad():
        for inner in module.modules():
            if isinstance(inner, nn.BatchNorm2d):
                for tensor in (inner.running_mean, inner.running_var, inner.weight, inner.bias):
                    if tensor is not None:
                        tensor.uniform_(0.5, 1.5)
    return module
