"""One pass through an accelerated module: which ops run together, and what is still to be taken at its end."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

import ddarts_ext.acceleration.operators
import ddarts_ext.acceleration.stacked  # noqa: F401  (likewise)
from ddarts_ext.acceleration import layout
from ddarts_ext.acceleration.branch import Branch, Pass
from ddarts_ext.acceleration.deferred import Deferred, plain
from ddarts_ext.acceleration.layers import Filter, Relu, Statistics, normed_family, run_family, run_normed
from ddarts_ext.acceleration.mixture import Mixture
from ddarts_ext.acceleration.plan import OpPlan, in_layout, readable

_thread = threading.local()


def current() -> Scope | None:
    """The scope that this thread is in."""
    return getattr(_thread, "scope", None)


class Learned:
    """Which ops read the same tensor, as seen in an earlier pass, so that one launch serves them.

    A guess about the next pass: a launch whose outputs are not all asked for is wasted work, never a wrong result, and
    ends the guessing (a network that samples its ops).
    """

    def __init__(self) -> None:
        self.groups: dict[OpPlan, tuple[OpPlan, ...]] = {}
        self.ready = False

    def study(self, reads: list[tuple[OpPlan, Tensor]]) -> None:
        found: dict[tuple[object, ...], list[OpPlan]] = {}
        for plan, x in reads:
            if plan.family is not None:
                found.setdefault((id(x), *plan.family), []).append(plan)
        for members in found.values():
            if 1 < len(members) == len(set(members)):
                self.groups |= dict.fromkeys(members, tuple(members))
        self.ready = True


@dataclass
class Begun:
    """An op whose first ``done`` steps have run on ``source``, and what its norms will record if it is asked for."""

    source: Tensor
    output: Tensor
    done: int = 1
    statistics: Sequence[Statistics] = ()


def _second_steps(members: Sequence[OpPlan], begun: Sequence[Begun]) -> None:
    """Run second steps that one launch can serve."""
    families: dict[tuple[object, ...], list[tuple[Filter, Begun]]] = {}
    for member, found in zip(members, begun, strict=True):
        step = member.steps[1] if len(member.steps) > 1 else None
        family = None if step is None else normed_family(step, found.output)
        if family is not None:
            assert isinstance(step, Filter)
            families.setdefault(family, []).append((step, found))
    for alike in families.values():
        outputs, statistics = run_normed([step for step, _ in alike], [found.output for _, found in alike])
        for i, (_, found) in enumerate(alike):
            found.output, found.done, found.statistics = outputs[i], 2, statistics[i : i + 1]


class Scope(Pass):
    """What ops of one pass share. See :func:`routed`."""

    def __init__(self, learned: Learned) -> None:
        super().__init__()
        self.ops = 0
        self._learned = learned
        self._ahead: dict[OpPlan, Begun] = {}
        self._reads: list[tuple[OpPlan, Tensor]] = []
        self._relus: dict[int, tuple[Tensor, Tensor]] = {}

    def op(self, plan: OpPlan, x: Any) -> Mixture | None:
        """The op's output, not yet normalised; None where the op must run as it is."""
        x = x.value() if isinstance(x, Deferred) else x
        if not readable(x) or not plan.usable():
            return None
        self.ops += 1
        if plan.zero:
            branch = Branch(self, x, x, zero=plan.zero, op=True)
        elif not plan.steps:
            branch = Branch(self, x, x, plan.norm, op=True)
        else:
            begun = self._begin(plan, x)
            for statistics in begun.statistics:
                self.running.record(*statistics)
            branch = Branch(self, x, plan.rest(begun.output, self, begun.done), plan.norm, op=True)
        return Mixture(self, [branch], [None], [])

    def term(self, result: Any) -> Any:
        """What an op that ran as it is returned, as a sum: code may ask that all ops return the same type."""
        if not readable(result):
            return result
        return Mixture(self, [Branch(self, result, result, op=True)], [None], [])

    def relu(self, x: Tensor) -> Tensor:
        """x.relu(), taken once."""
        found = self._relus.get(id(x))
        if found is None or found[0] is not x:
            found = self._relus[id(x)] = (x, in_layout(x).relu())
        return found[1]

    def _begin(self, plan: OpPlan, x: Tensor) -> Begun:
        """The first steps of the plan, together with those of all that are known to read ``x`` as well."""
        step = plan.steps[0]
        if plan.family is None:
            return Begun(x, step.run(in_layout(x), self) if not isinstance(step, Relu) else self.relu(x))
        ahead = self._ahead.get(plan)
        if ahead is not None and ahead.source is x:
            del self._ahead[plan]
            return ahead
        if not self._learned.ready:
            self._reads.append((plan, x))
        members = self._learned.groups.get(plan, (plan,))
        outputs = run_family([member.steps[0] for member in members], in_layout(x), self)
        begun = [Begun(x, output) for output in outputs]
        _second_steps(members, begun)
        for member, found in zip(members, begun, strict=True):
            if member is not plan:
                self._ahead[member] = found
        return begun[members.index(plan)]

    def finish(self, result: Any) -> Any:
        """The result without mixtures, after all statistics are taken."""
        result = plain(result)
        for branch in list(self.waiting):
            branch.plain()
        self.running.flush()
        if self._ahead:
            self._learned.groups = {}
        elif not self._learned.ready and self._reads:
            self._learned.study(self._reads)
        return result


def routed(learned: Learned, convert: bool, call: Any, args: Any, kwargs: Any) -> tuple[Any, Scope]:
    """``call(*args, **kwargs)`` inside a new scope: (its result, the scope).

    convert: contiguous feature maps are handed over in channels-last, and the results handed back contiguous.
    """
    scope = Scope(learned)
    converted = False
    if convert:
        leaves, spec = pytree.tree_flatten((args, kwargs))
        wanted = [layout.wants_channels_last(leaf) for leaf in leaves]
        converted = any(wanted)
        if converted:
            leaves = [layout.channels_last(leaf) if want else leaf for leaf, want in zip(leaves, wanted, strict=True)]
            args, kwargs = pytree.tree_unflatten(leaves, spec)
    _thread.scope = scope
    try:
        result = scope.finish(call(*args, **kwargs))
    finally:
        _thread.scope = None
    if converted:
        result = pytree.tree_map(lambda leaf: layout.contiguous(leaf) if isinstance(leaf, Tensor) else leaf, result)
    return result, scope


def compiling() -> bool:
    """Whether torch.compile or a tracer reads the code: it gets the user's."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[no-untyped-call, attr-defined]
