"""A budget as people write it: ``params=2M``, ``macs=300M``, ``latency=5ms``."""

from __future__ import annotations

import re
from dataclasses import dataclass

KINDS = ("params", "macs", "latency")
"""Parameters; multiply-adds of convolutions and linear layers for one image; milliseconds of one batch."""
_COUNTS = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9}
_TIMES = {"us": 1e-3, "ms": 1.0, "s": 1e3}
_WORDS = {"params": "parameters", "macs": "multiply-adds"}
_FORM = re.compile(r"(\w+)\s*=\s*(\d+(?:\.\d+)?|\.\d+)\s*([A-Za-z]*)")


@dataclass(frozen=True)
class CostBudget:
    """What a network may cost at most: ``amount`` of ``kind``, a name in :data:`KINDS`, in its unit."""

    kind: str
    amount: float

    @classmethod
    def parse(cls, text: str, command: str = "search") -> CostBudget:
        """Of a text. Counts may end in k, M or G; a time ends in us, ms or s. Raises TypeError or ValueError."""
        if not isinstance(text, str):
            raise TypeError(f"{command}: budget must be a text such as params=2M, got {text!r}")
        found = _FORM.fullmatch(text.strip())
        if found is None or found[1] not in KINDS:
            raise ValueError(
                f"{command}: budget must be params=N or macs=N (as 2M), or latency=N (as 5ms), got {text[:60]!r}"
            )
        kind, number, unit = found.groups()
        units = _TIMES if kind == "latency" else _COUNTS
        if unit not in units:
            known = ", ".join(filter(None, units))
            raise ValueError(f"{command}: budget of {kind} must end in one of {known}, got {text[:60]!r}")
        amount = float(number) * units[unit]
        if not 0 < amount < float("inf"):
            raise ValueError(f"{command}: budget must be above 0, got {text[:60]!r}")
        return cls(kind, amount)

    def __str__(self) -> str:
        return shown(self.kind, self.amount)


def shown(kind: str, cost: float) -> str:
    """A cost of that kind in words."""
    if kind == "latency":
        return f"{cost:.4g} ms"
    return f"{cost:,.0f} {_WORDS[kind]}"
