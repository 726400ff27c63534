"""How one op of a mixture runs on the kernels, and when it may."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ddarts_ext.acceleration.layers import Context, Norm, Step, halves_of, halving, layers_of, steps_of
from ddarts_ext.nn.pointwise import in_channels_last

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_GLOBAL_HOOKS = tuple(
    table
    for name in ("_global_forward_hooks", "_global_forward_pre_hooks", "_global_backward_hooks",
                 "_global_backward_pre_hooks")
    if (table := getattr(torch.nn.modules.module, name, None)) is not None
)  # fmt: skip


def hooks_of(module: nn.Module) -> list[OrderedDict[int, Any]]:
    """The tables of hooks that a call of the module would run."""
    return [module.__dict__[name] for name in HOOKS if name in module.__dict__]


def any_hooks(tables: Sequence[OrderedDict[int, Any]]) -> bool:
    """Whether any of the tables, or any of torch's global ones, holds a hook."""
    return any(tables) or any(_GLOBAL_HOOKS)


class OpPlan:
    """The steps of one op module. ``norm``: the affine-free norm that its output still awaits. ``zero``: stride of an
    op that contributes nothing."""

    def __init__(self, op: nn.Module, steps: Sequence[Step], norm: nn.BatchNorm2d | None, zero: int = 0) -> None:
        self.steps, self.norm, self.zero = tuple(steps), norm, zero
        self.family = steps[0].family if steps else None
        inside = [module for module in op.modules() if module is not op]
        self._hooks = [table for module in inside for table in hooks_of(module)]
        self._links = [
            (module._modules, name, child) for module in op.modules() for name, child in module._modules.items()
        ]

    def usable(self) -> bool:
        """False where the op's layers have hooks, which must see them run, or are no longer those of the plan."""
        return not any_hooks(self._hooks) and all(table.get(name) is child for table, name, child in self._links)

    def rest(self, x: Tensor, context: Context, done: int = 1) -> Tensor:
        """All steps but the first ``done``."""
        for step in self.steps[done:]:
            x = step.run(x, context)
        return x


def _sequence(op: nn.Module) -> list[Step] | None:
    layers = layers_of(op)
    return None if layers is None else steps_of(layers)


def _relu_first(op: nn.Module) -> list[Step] | None:
    layers = layers_of(op)
    return None if layers is None else steps_of([nn.ReLU(), *layers])


def _halving(op: nn.Module) -> list[Step] | None:
    return halving(op, pad=False)


def _halving_padded(op: nn.Module) -> list[Step] | None:
    return halving(op, pad=True)


VARIANTS: dict[str, Callable[[nn.Module], list[Step] | None]] = {
    "layers": _sequence,
    "halving": _halving,
    "padded halving": _halving_padded,
    "relu first": _relu_first,
}
"""How a module may be read. Which reading is right, if any, is found out by proof."""


def build(op: nn.Module, variant: str) -> OpPlan | None:
    """The plan of an op read in one way or None where it cannot be: as in ``VARIANTS``, or
    ``identity``, or ``zero<stride>``, which contributes nothing."""
    if variant == "identity":
        return OpPlan(op, (), None)
    if variant.startswith("zero"):
        return OpPlan(op, (), None, int(variant.removeprefix("zero")))
    steps = VARIANTS[variant](op)
    if steps is None:
        return None
    last = steps[-1] if steps else None
    if isinstance(last, Norm) and not last.norm.affine and not last.relu:
        return OpPlan(op, steps[:-1], last.norm)
    return OpPlan(op, steps, None)


def readings(op: nn.Module) -> Iterator[str]:
    """The variants in which an op can be read, most likely first."""
    if (
        layers_of(op) is None
        and not is_reduction(op)
        and next(op.parameters(), None) is None
        and next(op.buffers(), None) is None
    ):
        yield from ("identity", "zero1", "zero2")
        return
    for variant in VARIANTS:
        if build(op, variant) is not None:
            yield variant


def is_reduction(module: nn.Module) -> bool:
    """Whether the module's layers are those of a FactorizedReduce."""
    return halves_of(module) is not None


def readable(x: Any) -> bool:
    """Whether the steps can read ``x``: an ordinary floating [N,C,H,W]."""
    return type(x) in (Tensor, nn.Parameter) and x.dim() == 4 and x.is_floating_point()


def in_layout(x: Tensor) -> Tensor:
    """``x``, or where it is a slice of the channels of a channels-last tensor a channels-last copy."""
    if x.is_contiguous() or in_channels_last(x) or x.stride(1) != 1:
        return x
    return x.contiguous(memory_format=torch.channels_last)
