"""``accelerate`` and ``restore``: the walk through a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from ddarts_ext.acceleration.classes import is_routed, unroute
from ddarts_ext.acceleration.probe import Arguments, guess, observed, silent_copy
from ddarts_ext.acceleration.proof import Differs, Installation, measure_gain, prove, prove_op
from ddarts_ext.acceleration.recognise import Mixing, mixing, signature
from ddarts_ext.acceleration.report import Left, Replaced, Report


def accelerate(model: nn.Module, example_input: Any = None, strict: bool = False) -> Report:
    """Route the mixed ops and cells inside ``model`` through the kernels, in place; :func:`restore` undoes it.

    They are found by structure, and each is proved before it is kept: on copies in float64 the old and the new forward
    must agree in outputs, all gradients, running statistics and random state, in train and eval mode. One that does not
    stays as it was, and the report says why. Parameters, buffers, ``state_dict``, hooks and the user's own forward code
    stay: only what the ops return is summed differently.

    example_input: what the model takes (a tensor, a tuple of arguments, or a dict of named ones). The modules are then
    proved on what they get from it instead of on guessed arguments; its state is put back after the run.
    strict: raise ValueError, and leave the model as it was, unless everything that looks replaceable was replaced.

    Returns a :class:`Report`. Raises TypeError for a model that is no module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"accelerate: model must be a torch.nn.Module, got {type(model).__name__}")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # probes are too small to share
    try:
        walk = _Walk(model, example_input)
        report = walk.run()
    finally:
        torch.set_num_threads(threads)
    if strict and (report.left or not report.replaced):
        for module in walk.accepted:
            _undo(module)
        raise ValueError(f"accelerate: model must be replaceable as a whole with strict=True, got {report}")
    return report


def restore(model: nn.Module) -> nn.Module:
    """Undo :func:`accelerate`; returns the model, whose parameters and buffers are left as they are now."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"restore: model must be a torch.nn.Module, got {type(model).__name__}")
    for module in list(model.modules()):
        _undo(module)
    return model


def _undo(module: nn.Module) -> None:
    if is_routed(module):
        found = mixing(module)
        for inner in () if found is None else (*found.ops, *found.entrances, *found.parts):
            unroute(inner)
        unroute(module)


class _Walk:
    """One call of :func:`accelerate`."""

    def __init__(self, model: nn.Module, example: Any) -> None:
        self.accepted: list[nn.Module] = []
        self._left: list[Left] = []
        self._raw: list[Left] = []
        self._replaced: list[Replaced] = []
        self._variants: dict[tuple[object, ...], tuple[str | None, float | None]] = {}
        self._timed: set[tuple[type, str]] = set()
        named = [(path or type(model).__name__, module) for path, module in model.named_modules()]
        self._named = [(path, module) for path, module in named if not is_routed(module)]
        found = [(path, mixing(module)) for path, module in self._named]
        self._found = [(path, entry) for path, entry in found if entry is not None]
        self._seen = {} if example is None else observed(model, [entry for _, entry in self._found], example)
        self._paths = {module: path for path, module in named}

    def run(self) -> Report:
        covered: set[nn.Module] = set()
        for path, found in self._found:
            if found.module in covered:
                continue
            installed = self._install(path, found)
            if installed:
                self.accepted.append(found.module)
                covered |= set(found.module.modules())
        return Report(tuple(self._replaced), tuple(self._left), tuple(self._raw))

    def _install(self, path: str, found: Mixing) -> bool:
        """Prove one module and route it; False, and a line in the report, where it stays as it was."""
        if any(is_routed(op) for op in found.ops):
            self._left.append(Left(path, "shares ops with a module that is accelerated already"))
            return False
        variants = [self._variant(op) for op in (*found.ops, *found.entrances)]
        if all(variant in (None, "identity", "zero1", "zero2") for variant, _ in variants[: len(found.ops)]):
            self._left.append(self._worst(path, variants))
            return False
        readings = [variant or "raw" for variant, _ in variants]
        ops, entrances = tuple(readings[: len(found.ops)]), tuple(readings[len(found.ops) :])
        proved: list[str] = []
        failures: list[Left] = []
        worst, sums, gain, convert = 0.0, 0, None, True
        for method in sorted(found.methods(), key=len):
            trials, reason = self._arguments(found, method)
            if not trials:
                failures.append(Left(f"{path}.{method}", reason))
                continue
            for convert_ in (convert,) if proved else (True, False):
                attempt = Installation(ops, entrances, (method,), convert_)
                result = _attempt(found, attempt, method, trials)
                if not isinstance(result, Left):
                    break
            if isinstance(result, Left):
                failures.append(Left(f"{path}.{method}", result.reason, result.difference))
                continue
            convert = convert_
            worst, sums = max(worst, result[0]), sums + result[1]
            proved.append(method)
            if gain is None and result[1] and (type(found.module), found.kind) not in self._timed:
                gain = _gain(found, attempt, method, trials[0])
        if not proved or not sums:
            self._left += failures or [Left(path, "its forward takes no weighted sum of the ops")]
            return False
        self._timed.add((type(found.module), found.kind))
        try:
            Installation(ops, entrances, tuple(proved), convert).on(found)
        except TypeError as error:
            self._left.append(Left(path, f"its class cannot be exchanged: {error}"))
            return False
        self._left += failures
        self._note_raw(found, variants)
        self._replaced.append(Replaced(path, found.kind, tuple(proved), worst, gain))
        return True

    def _variant(self, op: nn.Module) -> tuple[str | None, float | None]:
        key = signature(op)
        if key not in self._variants:
            self._variants[key] = prove_op(op)
        return self._variants[key]

    def _arguments(self, found: Mixing, method: str) -> tuple[list[Arguments], str]:
        """Argument lists to prove a method on, or why there are none."""
        seen = self._seen.get((found.module, method))
        if seen:
            return seen, ""
        device = next((tensor.device for tensor in found.module.parameters()), torch.device("cpu"))
        try:
            scout = silent_copy(found.module)
            if found.adapter is not None and method == "forward":
                given = found.adapter.probe(found.module)
                if given is not None:
                    return [tuple(pytree.tree_map(_double, list(given)))], ""
            trials = guess(found, method, scout, device)
        except Exception as error:
            return [], f"cannot be copied for the proof: {_line(error)}"
        return trials, "no arguments could be guessed to prove it on: give example_input"

    def _note_raw(self, found: Mixing, variants: Sequence[tuple[str | None, float | None]]) -> None:
        for op, (variant, difference) in zip((*found.ops, *found.entrances), variants, strict=True):
            if variant is None:
                name = self._paths.get(op, type(op).__name__)
                self._raw.append(Left(f"{name} ({type(op).__name__})", _why(difference), difference))

    def _worst(self, path: str, variants: Sequence[tuple[str | None, float | None]]) -> Left:
        differences = [difference for variant, difference in variants if variant is None and difference is not None]
        difference = max(differences, default=None)
        return Left(path, f"none of its ops runs on the kernels: {_why(difference)}", difference)


def _attempt(
    found: Mixing, installed: Installation, method: str, trials: Sequence[Arguments]
) -> tuple[float, int] | Left:
    """(difference, sums) over all argument lists, or why not."""
    worst, sums = 0.0, 0
    try:
        for arguments in trials:
            difference, taken = prove(found, installed, method, arguments)
            worst, sums = max(worst, difference), sums + taken
    except Differs as error:
        return Left("", f"differs from the original: {error}", error.difference)
    except Exception as error:
        return Left("", f"cannot be proved: {_line(error)}")
    return worst, sums


def _gain(found: Mixing, installed: Installation, method: str, arguments: Arguments) -> float | None:
    try:
        return measure_gain(found, installed, method, arguments)
    except Exception:  # arguments that cannot be enlarged; the gain is for information only
        return None


def _why(difference: float | None) -> str:
    if difference is None:
        return "it is not made of layers that the kernels know"
    return f"its forward differs by {difference:.1e} from its layers one after another"


def _double(leaf: Any) -> Any:
    return leaf.detach().double() if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() else leaf


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
