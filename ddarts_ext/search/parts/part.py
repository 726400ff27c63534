"""What runs between the epochs of a search: the joint for early stopping, shrinking and schedules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ddarts_ext.data import Dataset
from ddarts_ext.runs.objective import Objective
from ddarts_ext.search.settings import SearchSettings
from ddarts_ext.search.state import SearchState


@dataclass(frozen=True)
class Surroundings:
    """What a part of a method may know of its search. judging: gives the indices of the images that judge. autocast:
    makes the context in which networks run. objective: what the search minimises."""

    config: SearchSettings
    dataset: Dataset
    judging: Callable[[], Tensor]
    autocast: Callable[[], AbstractContextManager[object]]
    objective: Objective = field(default_factory=Objective)


class Part:
    """Base of parts; a part overrides what it needs. Its state is saved with the checkpoint and must be weights_only
    loadable: tensors, numbers, strings, lists and dicts of them."""

    def before_epoch(self, state: SearchState, epoch: int) -> None:
        """Before the first step of epoch ``epoch`` (from 0)."""

    def after_epoch(self, state: SearchState, epoch: int, record: dict[str, Any]) -> bool:
        """After the epoch was judged. May add to ``record``, its line in the history. True stops the search."""
        return False

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`state_dict` gave."""


def check_parts(parts: Sequence[Any]) -> tuple[Part, ...]:
    """Raises TypeError for what is no part."""
    for part in parts:
        if not isinstance(part, Part):
            got = f"the class {part.__name__}" if isinstance(part, type) else type(part).__name__
            raise TypeError(f"search: parts must be objects of classes of Part, got {got}")
    return tuple(parts)
