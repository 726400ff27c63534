"""A proof on one set of arguments after the other, until the original takes one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ddarts_ext.acceleration.calls import Call
from ddarts_ext.acceleration.proof import Differs, Installation, Refused, prove
from ddarts_ext.acceleration.recognise import Mixing
from ddarts_ext.acceleration.report import Left

Trial = tuple[int, list[Call]]
"""Calls that are proved together, and which of all trials the first is."""


@dataclass(frozen=True)
class _Unsuited(Left):
    """The original does not take the arguments of the proof."""


def first_proved(
    found: Mixing, installed: Installation, method: str, trials: Sequence[Trial], thorough: bool
) -> tuple[tuple[float, int] | Left, int]:
    """((largest difference, sums), or why not; number of the trial) of the first trial that the original takes."""
    result: tuple[float, int] | Left = Left("", "there is nothing to prove it on")
    for number, calls in trials:
        result = _proved(found, installed, method, calls, thorough)
        if not isinstance(result, _Unsuited):
            return result, number
    return result, 0


def _proved(
    found: Mixing, installed: Installation, method: str, calls: Sequence[Call], thorough: bool
) -> tuple[float, int] | Left:
    """(difference, sums) over all calls, or why not."""
    worst, sums = 0.0, 0
    try:
        for given in calls:
            difference, taken = prove(found, installed, method, given, thorough)
            worst, sums = max(worst, difference), sums + taken
    except Differs as error:
        return Left("", f"differs from the original: {error}", error.difference)
    except Refused as error:
        return _Unsuited("", f"cannot be proved: {line(error)}")
    except Exception as error:
        return Left("", f"cannot be proved: {line(error)}")
    return worst, sums


def line(error: Exception) -> str:
    """What an error says, in one line of no more than 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__
