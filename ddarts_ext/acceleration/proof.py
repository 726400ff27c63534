"""Old forward against new, on copies in float64: outputs, gradients, statistics, random state, in both modes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ddarts_ext.acceleration.calls import Call
from ddarts_ext.acceleration.classes import OpSettings, ScopeSettings, is_routed, route, settings_of, unroute
from ddarts_ext.acceleration.copies import Copy, scramble, undisturbed
from ddarts_ext.acceleration.layers import channels_of
from ddarts_ext.acceleration.plan import build, readings
from ddarts_ext.acceleration.recognise import Mixing, methods_of
from ddarts_ext.acceleration.scope import Learned, Scope

TOLERANCE = 1e-9


class Differs(Exception):
    """By how much, relative to the largest entry; infinite where shapes, dtypes or the presence of gradients differ."""

    def __init__(self, what: str, difference: float) -> None:
        super().__init__(f"{what} differ by {difference:.1e}")
        self.difference = difference


class Refused(Exception):
    """The original itself does not take the arguments, or makes of them what is not finite."""


@dataclass(frozen=True)
class Installation:
    """How a mixing module is routed: the reading of each op ("raw": as it is) and of each entrance, the methods."""

    ops: tuple[str, ...]
    entrances: tuple[str, ...]
    methods: tuple[str, ...]
    convert: bool

    def on(self, found: Mixing) -> None:
        """Route the module and what is inside. On TypeError nothing is routed."""
        inside = [*zip((*found.ops, *found.entrances), (*self.ops, *self.entrances), strict=True)]
        try:
            for module, variant in inside:
                if not is_routed(module):
                    route(module, OpSettings(variant))
            for part in found.parts:
                if not is_routed(part):
                    route(part, ScopeSettings(tuple(methods_of(part)), self.convert, inner=True))
            route(found.module, ScopeSettings(self.methods, self.convert))
        except TypeError:
            for module in (found.module, *found.parts, *(op for op, _ in inside)):
                unroute(module)
            raise


def prove_op(op: nn.Module) -> tuple[str | None, float | None]:
    """(the reading under which the op equals its steps, or None; the smallest difference seen where none does)."""
    best: float | None = None
    device = next((tensor.device for tensor in op.parameters()), torch.device("cpu"))
    for variant in readings(op):
        try:
            _compare_op(op, variant, device)
        except Differs as error:
            best = error.difference if best is None else min(best, error.difference)
        except Exception:
            continue
        else:
            return variant, None
    return None, best


def _compare_op(op: nn.Module, variant: str, device: torch.device) -> None:
    """In training on even sides with gradients, otherwise on odd ones, which an op may refuse."""
    old, new = Copy(op).module, Copy(op).module
    plan = build(new, variant)
    if plan is None:
        raise TypeError("not of this kind")

    def steps(x: Tensor) -> Any:
        scope = Scope(Learned())
        return scope.finish(scope.op(plan, x))

    for training, *sides in ((True, 10, 6), (False, 9, 7), (False, 10, 6)):
        generator = torch.Generator().manual_seed(11)
        x = torch.randn((4, channels_of(op) or 4, *sides), generator=generator, dtype=torch.float64).to(device)
        for module in (old, new):
            scramble(module)
            module.train(bool(training))
        try:
            expected = run(old, Call((x,)), old, gradients=bool(training))
        except Exception:
            if sides == [9, 7]:
                continue
            raise
        largest(expected, run(new, Call((x,)), steps, gradients=bool(training)))
        if sides == [9, 7]:
            return


def check(found: Mixing, installed: Installation, method: str, given: Call) -> float:
    """The largest difference in one forward in training, where another module of the kind was proved; else as prove."""
    copied = Copy(found.module)
    module = copied.module.train()
    scramble(module)
    before = [buffer.clone() for buffer in module.buffers()]
    expected = run(module, given, getattr(module, method), gradients=False)
    for buffer, value in zip(module.buffers(), before, strict=True):
        buffer.copy_(value)
    installed.on(found.within(copied))
    return largest(expected, run(module, given, getattr(module, method), gradients=False))


def prove(found: Mixing, installed: Installation, method: str, given: Call, thorough: bool = True) -> tuple[float, int]:
    """(largest difference, sums taken in one pass) of one method.

    Raises Refused, what the new forward raises, or Differs.
    thorough: compare gradients in eval mode, too, and not in training alone.
    """
    copies = Copy(found.module), Copy(found.module)
    old, new = (copied.module for copied in copies)
    installed.on(found.within(copies[1]))
    scramble(old)
    scramble(new)
    worst = 0.0
    for training in (True, False):  # the second pass runs together what read one tensor
        old.train(training)
        new.train(training)
        gradients = training or thorough
        try:
            expected = run(old, given, getattr(old, method), gradients)
        except Exception as error:
            raise Refused(str(error) or type(error).__name__) from error
        if not all(bool(out.isfinite().all()) for out in expected["outputs"]):
            raise Refused("the original returns numbers that are not finite")
        worst = max(worst, largest(expected, run(new, given, getattr(new, method), gradients)))
    return worst, settings_of(new).fused


def run(module: nn.Module, given: Call, call: Callable[..., Any], gradients: bool = True) -> dict[str, list[Any]]:
    """Outputs, gradients of arguments and parameters, buffers and random state after one pass."""
    wanted: list[Tensor] = []

    def leaf(value: Tensor) -> Tensor:
        made = value.detach().clone(memory_format=torch.preserve_format)
        if gradients and made.is_floating_point():
            wanted.append(made.requires_grad_())
        return made

    given = given.map(leaf)
    with undisturbed(), torch.set_grad_enabled(gradients):
        torch.manual_seed(3)
        outputs = [out for out in pytree.tree_leaves(call(*given.args, **given.kwargs)) if isinstance(out, Tensor)]
        random = torch.get_rng_state()
    generator = torch.Generator().manual_seed(13)
    wanted += [parameter for parameter in module.parameters() if parameter.requires_grad and gradients]
    routes = [out for out in outputs if out.requires_grad]
    cotangents = [torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out) for out in routes]
    found: list[Any] = []
    if routes and wanted:
        # One number at the end: gradients of several tensors make torch import a library for symbols.
        loss = torch.stack([(out * by).sum() for out, by in zip(routes, cotangents, strict=True)]).sum()
        found = list(torch.autograd.grad(loss, wanted, allow_unused=True))
    return {
        "outputs": [out.detach() for out in outputs],
        "gradients": found,
        "buffers": [buffer.detach().clone() for buffer in module.buffers()],
        "random states": [random],
    }


def largest(expected: dict[str, list[Any]], found: dict[str, list[Any]]) -> float:
    """The largest relative difference; raises Differs beyond the tolerance."""
    worst = 0.0
    for what, theirs in expected.items():
        ours = found[what]
        if len(ours) != len(theirs):
            raise Differs(what, float("inf"))
        pairs = list(zip(ours, theirs, strict=True))
        if not all(_comparable(a, b) for a, b in pairs):
            raise Differs(what, float("inf"))
        floating = [(a, b) for a, b in pairs if b is not None and b.is_floating_point() and b.numel()]
        if not floating:
            continue
        sizes = _magnitudes([b for _, b in floating])
        sizes = sizes.clamp_min(max(1e-3 * float(sizes.max()), 1e-300))
        differences = _magnitudes([a - b for a, b in floating]) / sizes
        difference = float(differences.max())  # not a number where any is none
        if not difference <= TOLERANCE:
            raise Differs(what, difference)
        worst = max(worst, difference)
    return worst


def _comparable(a: Tensor | None, b: Tensor | None) -> bool:
    """Whether shapes, dtypes and the presence agree, and the values unless they are floating."""
    if a is None or b is None:
        return a is b
    return a.shape == b.shape and a.dtype == b.dtype and (a.is_floating_point() or torch.equal(a, b))


def _magnitudes(tensors: Sequence[Tensor]) -> Tensor:
    """The largest absolute entry of each tensor, [len(tensors)]."""
    norms = torch._foreach_norm(list(tensors), float("inf"))
    return torch.stack([norm.to("cpu", torch.float64) for norm in norms])
