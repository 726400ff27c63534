"""Old forward against new, on copies in float64: outputs, gradients, statistics, random state, in both modes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ddarts_ext.acceleration.classes import OpSettings, ScopeSettings, is_routed, route, settings_of, unroute
from ddarts_ext.acceleration.plan import build, readings
from ddarts_ext.acceleration.probe import Arguments, scramble, silent_copy, undisturbed
from ddarts_ext.acceleration.recognise import Mixing, channels_of, mixing
from ddarts_ext.acceleration.scope import Learned, Scope

TOLERANCE = 1e-9
_PASSES = (True, False)  # training or not; the second pass runs together what the first saw read one tensor


class Differs(Exception):
    """By how much, relative to the largest entry; infinite where shapes, dtypes or the presence of gradients differ."""

    def __init__(self, what: str, difference: float) -> None:
        super().__init__(f"{what} differ by {difference:.1e}")
        self.difference = difference


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
                    methods = tuple(Mixing(part, "mixed op", (), 1, 1).methods())
                    route(part, ScopeSettings(methods, self.convert, inner=True))
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
    old, new = silent_copy(op), silent_copy(op)
    plan = build(new, variant)
    if plan is None:
        raise TypeError("not of this kind")
    accepted = 0
    for height, width in ((10, 6), (9, 7)):
        generator = torch.Generator().manual_seed(11)
        x = torch.randn((4, channels_of(op) or 4, height, width), generator=generator, dtype=torch.float64).to(device)
        for training in (True, False):
            for module in (old, new):
                scramble(module)
                module.train(training)
            try:
                expected = _run(old, (x,), old)
            except Exception:
                continue  # an op may refuse odd sides
            accepted += 1

            def steps(x: Tensor) -> Any:
                scope = Scope(Learned())
                return scope.finish(scope.op(plan, x))

            largest(expected, _run(new, (x,), steps))
    if not accepted:
        raise TypeError("not a function of one feature map")


def prove(found: Mixing, installed: Installation, method: str, arguments: Arguments) -> tuple[float, int]:
    """(largest difference, sums taken in one pass) of one method; raises what the new forward raises, or Differs."""
    old, new = silent_copy(found.module), silent_copy(found.module)
    copied = mixing(new)
    if copied is None:
        raise TypeError("the copy looks different")
    installed.on(copied)
    scramble(old)
    scramble(new)
    worst = 0.0
    for training in _PASSES:
        old.train(training)
        new.train(training)
        expected = _run(old, arguments, getattr(old, method))
        worst = max(worst, largest(expected, _run(new, arguments, getattr(new, method))))
    return worst, settings_of(new).fused


def _run(module: nn.Module, arguments: Sequence[Any], call: Callable[..., Any]) -> dict[str, list[Any]]:
    """Outputs, gradients of arguments and parameters, buffers and random state after one pass."""

    def leaf(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.detach().clone().requires_grad_(value.is_floating_point())
        return value

    inputs = [pytree.tree_map(leaf, argument) for argument in arguments]
    with undisturbed(), torch.enable_grad():
        torch.manual_seed(3)
        outputs = [out for out in pytree.tree_leaves(call(*inputs)) if isinstance(out, Tensor)]
        random = torch.get_rng_state()
    generator = torch.Generator().manual_seed(13)
    wanted = [value for value in pytree.tree_leaves(inputs) if isinstance(value, Tensor) and value.requires_grad]
    wanted += [parameter for parameter in module.parameters() if parameter.requires_grad]
    routes = [out for out in outputs if out.requires_grad]
    cotangents = [torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out) for out in routes]
    gradients: list[Any] = []
    if routes and wanted:
        gradients = list(torch.autograd.grad(routes, wanted, cotangents, allow_unused=True))
    return {
        "outputs": [out.detach() for out in outputs],
        "gradients": gradients,
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
        floating = [t for t in theirs if isinstance(t, Tensor) and t.is_floating_point() and t.numel()]
        floor = 1e-3 * max((float(t.abs().max()) for t in floating), default=1.0)
        for a, b in zip(ours, theirs, strict=True):
            difference = _difference(a, b, floor)
            if not difference <= TOLERANCE:
                raise Differs(what, difference)
            worst = max(worst, difference)
    return worst


def _difference(a: Tensor | None, b: Tensor | None, floor: float) -> float:
    if a is None or b is None:
        return 0.0 if a is b else float("inf")
    if a.shape != b.shape or a.dtype != b.dtype:
        return float("inf")
    if not a.is_floating_point() or not a.numel():
        return 0.0 if torch.equal(a, b) else float("inf")
    return float((a - b).abs().max() / max(float(b.abs().max()), floor, 1e-300))


def measure_gain(found: Mixing, installed: Installation, method: str, arguments: Arguments) -> float | None:
    """How much faster forward and backward became on arguments of twice as many images of twice the sides."""

    def larger(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or not leaf.is_floating_point():
            return leaf
        if leaf.dim() == 4:
            leaf = leaf.repeat(2, 1, 2, 2)
        return leaf.float()

    arguments = pytree.tree_map(larger, tuple(arguments))
    times = []
    for routed in (False, True):
        module = silent_copy(found.module).float().train()
        copied = mixing(module)
        if routed and copied is not None:
            installed.on(copied)
        best = float("inf")
        for _ in range(2):
            start = time.perf_counter()
            _run(module, arguments, getattr(module, method))
            best = min(best, time.perf_counter() - start)
        times.append(best)
    return times[0] / times[1]
