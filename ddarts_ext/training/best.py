"""The best epoch of a training, chosen by training images that it did not train on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from ddarts_ext.data import Dataset, Split
from ddarts_ext.data.order import canonical_order, divided
from ddarts_ext.data.subset import Subset
from ddarts_ext.runs.objective import Objective


@dataclass(frozen=True)
class Best:
    """The weights after ``epoch`` finished epochs. accuracy, loss: on the images that were held back to choose by;
    ``accuracy`` is the metric of the training, whatever that is."""

    epoch: int
    accuracy: float
    loss: float
    weights: Mapping[str, Tensor] = field(repr=False)

    def to_checkpoint(self) -> dict[str, Any]:
        """Plain data and tensors."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def better(
        cls,
        before: Best | None,
        epoch: int,
        figures: Mapping[str, Any],
        network: Any,
        objective: Objective | None = None,
    ) -> Best:
        """The better of ``before`` and the network as it is: by the metric, then by loss, then the earlier one."""
        how = objective or Objective()
        accuracy, loss = figures[f"held_back_{how.metric_name}"], figures["held_back_loss"]
        sign = 1 if how.higher_is_better else -1
        if before is not None and (sign * before.accuracy, -before.loss) >= (sign * accuracy, -loss):
            return before
        return cls(
            epoch, accuracy, loss, {name: value.detach().clone() for name, value in network.state_dict().items()}
        )


def hold_back(dataset: Dataset, fraction: float, seed: int) -> tuple[Dataset, Split]:
    """The data set without ``fraction`` of its training images, stratified, and these. Its test images stay."""
    train = dataset.train
    rest, held = divided(train.labels, canonical_order(train), 1.0 - fraction, seed)
    note = f"{len(held)} training images are held back, to choose the best epoch by"
    return (
        replace(dataset, train=Subset(train, rest), note="; ".join(filter(None, (dataset.note, note)))),
        Subset(train, held),
    )
