"""Parameters and multiply-adds of a network, in the two conventions of the literature."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


class MultiplyAdds(NamedTuple):
    """Per image. convolutions: multiply-adds of convolutions and linear layers. with_norms: the same plus two per
    element that leaves a batch norm, the convention of the tool that D-DARTS counted with."""

    convolutions: int
    with_norms: int


def count_parameters(model: nn.Module, *, auxiliary: bool = True) -> int:
    """The number of learnable values; without those of the auxiliary head where asked."""
    return sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if auxiliary or not name.startswith("auxiliary.")
    )


def count_multiply_adds(
    model: nn.Module, image: Sequence[int] = (3, 32, 32), *arguments: Any, batch: int = 2
) -> MultiplyAdds:
    """Multiply-adds of ``model(images, *arguments)`` per image [C, H, W], counted op by op on the meta device.

    Nothing is computed: the model may live anywhere, is not changed, and its size does not matter.
    """
    counter = _Counter()
    tensors = {name: _meta(tensor) for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    images = torch.empty((batch, *image), device="meta", dtype=next((t.dtype for t in tensors.values()), None))
    training = model.training
    try:
        model.eval()
        with torch.no_grad(), counter:
            torch.func.functional_call(model, tensors, (images, *(_meta(a) for a in arguments)))
    finally:
        model.train(training)
    return MultiplyAdds(counter.products // batch, (counter.products + 2 * counter.normalized) // batch)


def _meta(value: Any) -> Any:
    return value.to("meta") if isinstance(value, Tensor) else value


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up what every op multiplies and what leaves every norm."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.products = 0
        self.normalized = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.name().removeprefix("aten::").removeprefix("ddarts_ext::").split(".")[0]
        if name in _PRODUCTS:
            self.products += _PRODUCTS[name](args, out)
        if name in _NORMALIZED:
            self.normalized += _NORMALIZED[name](args, out)
        return out


def _convolution(args: Any, out: Any) -> int:
    return int(out.numel() * prod(args[1].shape[1:]))


def _depthwise(args: Any, out: Any) -> int:
    return sum(y.numel() * prod(weight.shape[1:]) for y, weight in zip(out[0], args[1], strict=True))


def _separable(args: Any, out: Any) -> int:
    """Depthwise and pointwise: k*k*C values and C*Co products a pixel."""
    pixels = [y.numel() // y.shape[1] for y in out[0]]
    sizes = [depthwise.numel() + pointwise.numel() for depthwise, pointwise in zip(args[1], args[2], strict=True)]
    return sum(count * size for count, size in zip(pixels, sizes, strict=True))


def _edges(args: Any, out: Any) -> int:
    """The same of all stages, which have one size of outputs."""
    total = out[0][0]
    return int(total.numel() // total.shape[1] * sum(weight.numel() for weight in (*args[2], *args[3])))


def _pointwise(args: Any, out: Any) -> int:
    """Every weight once a pixel."""
    return sum(out.numel() // out.shape[1] * weight.numel() for weight in args[1])


_PRODUCTS: dict[str, Callable[[Any, Any], int]] = {
    "convolution": _convolution,
    "mixed_edges": _edges,
    "relu_depthwise_conv2d": _depthwise,
    "relu_pointwise_conv2d": _pointwise,
    "relu_separable_conv2d": _separable,
    "mm": lambda args, out: out.numel() * args[0].shape[-1],
    "addmm": lambda args, out: out.numel() * args[1].shape[-1],
    "bmm": lambda args, out: out.numel() * args[0].shape[-1],
    "linear": lambda args, out: out.numel() * args[0].shape[-1],
}

_NORMALIZED: dict[str, Callable[[Any, Any], int]] = {
    "native_batch_norm": lambda args, out: out[0].numel(),
    "_native_batch_norm_legit": lambda args, out: out[0].numel(),
    "_native_batch_norm_legit_no_training": lambda args, out: out[0].numel(),
    "grouped_batch_norm": lambda args, out: out[0].numel(),
    # schema: (x, weights, dilations, stride, normalize, ...)
    "relu_depthwise_conv2d": lambda args, out: args[0].numel() if args[4] else 0,
    # schema: (inputs, weights, pointwise, sources, dilations, stride, normalize, ...)
    "relu_separable_conv2d": lambda args, out: sum(x.numel() for x in args[0]) if args[6] else 0,
    # schema: (x, previous, depthwise, pointwise, weights, targets, kinds, dilations, seconds, normalize, ...)
    "mixed_edges": lambda args, out: out[0][0].numel() * (sum(args[9]) + len(args[8])),
    # schema: (branches, weights, normalize, ...)
    "mixed_sum": lambda args, out: out[0].numel() * sum(args[2]),
}
