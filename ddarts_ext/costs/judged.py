"""What the result of a search under a budget costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ddarts_ext.costs.budget import KINDS, shown


@dataclass(frozen=True)
class GenotypeCost:
    """What the result of a search costs, in the unit of ``kind``, beside its budget. note: what was done for it, or why
    it is above the budget; else empty."""

    kind: str
    cost: float
    budget: float
    note: str = ""

    def __str__(self) -> str:
        return f"{shown(self.kind, self.cost)} of a budget of {shown(self.kind, self.budget)}"

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> GenotypeCost:
        """What cost.json of a run holds. Raises ValueError or TypeError for something else."""
        if not isinstance(data, Mapping) or data.get("kind") not in KINDS:
            raise ValueError(f"cost: must be an object with a kind of {', '.join(KINDS)}, got {str(data)[:60]!r}")
        return cls(data["kind"], float(data.get("cost", "")), float(data.get("budget", "")), str(data.get("note", "")))
