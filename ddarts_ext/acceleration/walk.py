"""One walk through a model: what is found, proved, timed, and routed."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from ddarts_ext.acceleration.attempts import Trial, first_proved, line
from ddarts_ext.acceleration.calls import Call, cut, double
from ddarts_ext.acceleration.classes import ScopeSettings, is_routed, settings_of
from ddarts_ext.acceleration.copies import Copy
from ddarts_ext.acceleration.gain import CLEAR, enlarged, measure_gain
from ddarts_ext.acceleration.guess import guess, trials
from ddarts_ext.acceleration.kinds import Kinds
from ddarts_ext.acceleration.observe import Seen, observed, observed_on_few, observed_on_images
from ddarts_ext.acceleration.proof import Installation, check, prove_op
from ddarts_ext.acceleration.recognise import Mixing, Recogniser
from ddarts_ext.acceleration.report import Left, Replaced, Report

NO_SUM = "its forward takes no weighted sum of several of its ops"
Reading = tuple[str | None, float | None]


@dataclass(frozen=True)
class Outcome:
    """What came of a method of one module, as far as it holds for others of its kind.

    installed: how it runs, None where it does not, for the reason ``left``. trial: which arguments proved it.
    """

    installed: Installation | None = None
    trial: int = 0
    difference: float = 0.0
    gain: float | None = None
    left: Left | None = None


class Walk:
    """One call of ``accelerate``. threads: how many the user's code runs on, and is timed with."""

    def __init__(self, model: nn.Module, example: Any, least_gain: float, threads: int) -> None:
        self.accepted: list[nn.Module] = []
        self._least_gain, self._threads = least_gain, threads
        self._left: list[Left] = []
        self._raw: list[Left] = []
        self._replaced: list[Replaced] = []
        self._kinds = Kinds()
        self._readings: dict[int, Reading] = {}
        self._gains: dict[tuple[object, ...], float] = {}
        self._outcomes: dict[tuple[object, ...], Outcome] = {}
        self._proved: set[tuple[type, str]] = set()
        self._paths = {module: path or type(model).__name__ for path, module in model.named_modules()}
        scopes = [m for m in self._paths if is_routed(m) and isinstance(settings_of(m), ScopeSettings)]
        self._already = [m for m in scopes if not settings_of(m).inner]
        self._covered = {inner for module in self._already for inner in module.modules()}
        recogniser = Recogniser()
        looks = [recogniser.of(module) for module in self._paths if module not in self._covered]
        self._found = [guesses for guesses in looks if guesses]
        modules = [guesses[0].module for guesses in self._found]
        self._shown = example is not None
        self._seen: Seen = {}
        self._all_seen: Callable[[], Seen] | None = None  # where what is seen is of a few images of the example
        if self._shown:
            whole = partial(observed, model, modules, example)
            self._seen = observed_on_few(model, modules, example)
            try:
                self._seen, self._all_seen = (self._seen, whole) if self._seen else (whole(), None)
            except (RuntimeError, TypeError, ValueError) as error:
                raise ValueError(f"accelerate: example_input must be what the model takes: {error}") from error
        elif modules and model not in modules:
            self._seen = observed_on_images(model, modules)

    def run(self) -> Report:
        for i, guesses in enumerate(self._found):
            module = guesses[0].module
            if module in self._covered:
                continue
            self._progress(f"{i + 1}/{len(self._found)} {self._paths[module]}")
            self._try(guesses)
        self._progress("")
        already = tuple(self._paths[module] for module in self._already)
        return Report(tuple(self._replaced), tuple(self._left), tuple(self._raw), already)

    def _try(self, guesses: list[Mixing]) -> None:
        """Take the first guess that holds; else note why the likeliest does not, unless what is inside does."""
        reasons: list[list[Left]] = []
        for found in guesses:
            left = self._install(found)
            if left is None:
                return
            if any(entry.gain is not None for entry in left):  # right, but not worth it: nor is what is inside
                self._left += left
                self._covered |= set(found.module.modules())
                return
            if not found.vague:
                reasons.append(left)
        self._left += reasons[0] if reasons else []

    def _progress(self, text: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\x1b[K{'accelerate: ' + text if text else ''}", end="", file=sys.stderr, flush=True)

    def _install(self, found: Mixing) -> list[Left] | None:
        """Prove one module and route it: None, or why it stays as it is."""
        if any(is_routed(op) for op in found.ops):
            return [Left(self._paths[found.module], "shares ops with a module that is accelerated already")]
        readings = [self._reading(op) for op in (*found.ops, *found.entrances)]
        left = self._install_as(found, readings)
        if left is None or not any(entry.difference for entry in left):
            return left
        own = [prove_op(op) for op in (*found.ops, *found.entrances)]  # and not another of its kind
        return left if own == readings else self._install_as(found, own)

    def _install_as(self, found: Mixing, readings: Sequence[Reading]) -> list[Left] | None:
        path, count = self._paths[found.module], len(found.ops)
        if all(variant in (None, "identity", "zero1", "zero2") for variant, _ in readings[:count]):
            return [_worst(path, readings[:count])]
        names = [variant or "raw" for variant, _ in readings]
        parts = tuple(names[:count]), tuple(names[count:])
        outcomes = self._methods(found, Installation(*parts, (), True))
        good = {method: outcome for method, outcome in outcomes.items() if outcome.installed is not None}
        if not good:
            return [outcome.left for outcome in outcomes.values() if outcome.left] or [Left(path, NO_SUM)]
        convert = any(outcome.installed.convert for outcome in good.values() if outcome.installed)
        try:
            Installation(*parts, tuple(good), convert).on(found)
        except TypeError as error:
            return [Left(path, f"its class cannot be exchanged: {error}")]
        gains = [outcome.gain for outcome in good.values() if outcome.gain is not None]
        worst = max(outcome.difference for outcome in good.values())
        self._replaced.append(Replaced(path, found.kind, tuple(good), worst, min(gains, default=None)))
        self._left += [outcome.left for outcome in outcomes.values() if outcome.left]
        self._note_raw(found, readings)
        self.accepted.append(found.module)
        self._covered |= set(found.module.modules())
        return None

    def _reading(self, op: nn.Module) -> Reading:
        kind = self._kinds.of(op)
        if kind not in self._readings:
            self._readings[kind] = prove_op(op)
        return self._readings[kind]

    def _methods(self, found: Mixing, installed: Installation) -> dict[str, Outcome]:
        """What comes of every method that is used, as far as one can know: of all but ``forward`` only if it holds."""
        outcomes: dict[str, Outcome] = {}
        used = [name for name in found.methods() if (found.module, name) in self._seen]
        if self._shown and not used:
            return {"forward": Outcome(left=Left(self._paths[found.module], "the example does not reach it"))}
        for method in used or sorted(found.methods(), key=len):
            first = next((outcome.installed for outcome in outcomes.values() if outcome.installed), None)
            converts = (True, False) if first is None else (first.convert,)
            outcome = self._method(found, installed, method, converts)
            if outcome is not None and (used or outcome.installed or method == "forward"):
                outcomes[method] = outcome
        return outcomes

    def _method(self, found: Mixing, installed: Installation, method: str, converts: Sequence[bool]) -> Outcome | None:
        path = f"{self._paths[found.module]}.{method}"
        key = (self._kinds.of(found.module), found.kind, installed.ops, method)
        known = self._outcomes.get(key)
        if known is not None and known.left is not None and known.left.gain is not None:
            return Outcome(left=Left(path, known.left.reason, gain=known.left.gain))
        if known is not None and known.installed is not None:
            checked = self._checked(found, known, known.installed, method)
            if checked is not None:
                return checked
        alternatives, timed, reason = self._calls(found, method)
        if not alternatives:
            return Outcome(left=Left(path, reason))
        thorough = (type(found.module), method) not in self._proved
        best = Outcome(left=Left(path, NO_SUM))
        for convert in converts:
            attempt = Installation(installed.ops, installed.entrances, (method,), convert)
            result, trial = first_proved(found, attempt, method, alternatives, thorough)
            if isinstance(result, Left):
                best = Outcome(left=Left(path, result.reason, result.difference)) if best.gain is None else best
                continue
            if not result[1]:
                return None if method != "forward" else best
            self._proved.add((type(found.module), method))
            gain = self._gain(found, attempt, method, timed)
            if best.gain is None or (gain or 0.0) > best.gain:
                best = Outcome(attempt, trial, result[0], gain)
            if gain is None or gain >= self._least_gain:
                break
        if best.gain is not None and best.gain < self._least_gain:
            best = Outcome(left=Left(path, f"not worth it: {best.gain:.2f}x", gain=best.gain))
        self._outcomes[key] = best
        return best

    def _gain(self, found: Mixing, installed: Installation, method: str, timed: Call) -> float | None:
        if self._least_gain <= 0:
            return None
        kind = (type(found.module), found.kind, method)
        if self._gains.get(kind, 0.0) >= CLEAR:  # others of its class with other strides or entrances gain, too
            return self._gains[kind]
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            gain = measure_gain(found, installed, method, timed)
            larger = self._larger(found, method, timed) if gain < CLEAR else timed
            self._gains[kind] = gain if larger is timed else measure_gain(found, installed, method, larger)
            return self._gains[kind]
        except Exception:  # arguments that cannot be enlarged
            return None
        finally:
            torch.set_num_threads(before)

    def _larger(self, found: Mixing, method: str, timed: Call) -> Call:
        """More images to time the method with, where a gain on few of them decides nothing."""
        if self._all_seen is not None:
            self._seen, self._all_seen = self._all_seen(), None
        seen = self._seen.get((found.module, method))
        return seen or (timed if found.adapter is not None else enlarged(timed, 4, 1))

    def _checked(self, found: Mixing, known: Outcome, installed: Installation, method: str) -> Outcome | None:
        """What is known of the kind, if it holds for this module in one forward."""
        seen = self._seen.get((found.module, method))
        try:
            if seen is None and found.adapter is not None:
                return None
            some = trials(found, getattr(found.module, method), _device(found)) if seen is None else cut(seen)
            given = next(itertools.islice(some, known.trial, None)).map(double)
            return replace(known, difference=check(found, installed, method, given))
        except Exception:  # the full proof will say what it is
            return None

    def _calls(self, found: Mixing, method: str) -> tuple[list[Trial], Call, str]:
        """(calls to prove a method on: the first that it takes, a call to time it with, why there are none)."""
        try:
            seen = self._seen.get((found.module, method))
            if seen is not None:
                return [(i, [smaller.map(double)]) for i, smaller in enumerate(cut(seen))], seen, ""
            probe = found.adapter.probe(found.module) if found.adapter is not None and method == "forward" else None
            if probe is not None:
                given = Call(tuple(probe)).map(double)
                return [(0, [given])], given, ""
            scout = Copy(found.module).module.eval()
            calls, trial = guess(found, method, scout, _device(found))
        except Exception as error:
            return [], Call(()), f"cannot be copied for the proof: {line(error)}"
        if not calls:
            return [], Call(()), "no arguments could be guessed to prove it on: give example_input"
        return [(trial, calls)], enlarged(calls[0], 2, 2), ""

    def _note_raw(self, found: Mixing, readings: Sequence[Reading]) -> None:
        for op, (variant, difference) in zip((*found.ops, *found.entrances), readings, strict=True):
            if variant is None:
                name = self._paths.get(op, type(op).__name__)
                self._raw.append(Left(f"{name} ({type(op).__name__})", _why(difference), difference))


def _device(found: Mixing) -> torch.device:
    return next((tensor.device for tensor in found.module.parameters()), torch.device("cpu"))


def _worst(path: str, readings: Sequence[Reading]) -> Left:
    differences = [difference for variant, difference in readings if variant is None and difference is not None]
    difference = max(differences, default=None)
    return Left(path, f"none of its ops runs on the kernels: {_why(difference)}", difference)


def _why(difference: float | None) -> str:
    if difference is None:
        return "it is not made of layers that the kernels know"
    return f"its forward differs by {difference:.1e} from its layers one after another"
