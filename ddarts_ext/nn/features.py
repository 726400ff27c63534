"""What a network is to code that uses it as a backbone, by the names that timm gave it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn

from ddarts_ext.nn.forward_pass import Pass

if TYPE_CHECKING:
    _Base = nn.Module
else:
    _Base = object


@dataclass(frozen=True)
class Level:
    """The last output of one resolution. place: -1 the stem (-2 its first half), else the index of a cell.

    channels: of the output [N, channels, H / reduction, W / reduction], sides rounded up.
    """

    place: int
    channels: int
    reduction: int

    @property
    def module(self) -> str:
        """The name of the module that it comes from."""
        return f"cells.{self.place}" if self.place >= 0 else "stem"


class FeatureInfo:
    """What :class:`FeatureNetwork` gives, in its order."""

    def __init__(self, levels: Sequence[Level]) -> None:
        self.levels = tuple(levels)

    def __len__(self) -> int:
        return len(self.levels)

    def channels(self) -> list[int]:
        """Channels of every output."""
        return [level.channels for level in self.levels]

    def reduction(self) -> list[int]:
        """By how much the sides of every output are smaller than those of the image."""
        return [level.reduction for level in self.levels]

    def module_name(self) -> list[str]:
        """The modules that the outputs come from."""
        return [level.module for level in self.levels]


class Backbone(_Base):
    """A network with a head of its own: features [N, num_features, h, w], which are pooled and classified."""

    classes: int
    classifier: nn.Module

    def levels(self) -> list[Level]:
        """The resolutions on the way, from the largest; the last is that of the features."""
        raise NotImplementedError

    def watched(self, x: Tensor, places: Sequence[int], p: Pass | None = None) -> dict[int, Tensor]:
        """The outputs of the stem (-1, -2) and of cells that ``places`` names; what comes after them is not run."""
        raise NotImplementedError

    def forward_features(self, x: Tensor, p: Pass | None = None) -> Tensor:
        """The features [N, num_features, h, w] of images, before they are pooled."""
        raise NotImplementedError

    @property
    def num_features(self) -> int:
        """Channels of the features."""
        return self.levels()[-1].channels

    @property
    def num_classes(self) -> int:
        """Classes of the head, 0 where it is taken off."""
        return self.classes

    @property
    def feature_info(self) -> FeatureInfo:
        """Channels and reductions of the resolutions on the way."""
        return FeatureInfo(self.levels())

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits [N, num_classes] of features; with ``pre_logits`` what the classifier takes, [N, num_features]."""
        pooled = x.mean((2, 3))
        return pooled if pre_logits else cast(Tensor, self.classifier(pooled))

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new head for so many classes, with new weights, on the device of the old one; 0 takes it off.

        The auxiliary head gets a new last layer too. global_pool: ``avg`` or None; there is no other.
        Raises ValueError or TypeError for what is none of these.
        """
        if isinstance(num_classes, bool) or not isinstance(num_classes, int):
            raise TypeError(f"reset_classifier: num_classes must be a whole number, got {num_classes!r}")
        if num_classes < 0:
            raise ValueError(f"reset_classifier: num_classes must be >= 0, got {num_classes}")
        if global_pool not in (None, "avg"):
            raise ValueError(f"reset_classifier: global_pool must be avg, got {global_pool!r}")
        self.classifier = self._head(self.num_features, num_classes)
        auxiliary: Any = getattr(self, "auxiliary", None)
        if auxiliary is not None:
            auxiliary.classifier = self._head(768, num_classes)
        self.classes = num_classes

    def _head(self, features: int, classes: int) -> nn.Module:
        like = next(self.parameters())
        return nn.Linear(features, classes, device=like.device, dtype=like.dtype) if classes else nn.Identity()


class FeatureNetwork(nn.Module):
    """Images -> the outputs of several resolutions, a list in the order of ``out_indices``.

    network: its head is not run. out_indices: places in ``network.feature_info``, from the largest resolution; negative
    ones count from the end; all of them when left out. Raises ValueError for one that there is not.
    """

    def __init__(self, network: nn.Module, out_indices: Sequence[int] | None = None) -> None:
        super().__init__()
        found = cast(Backbone, network).levels()
        wanted = range(len(found)) if out_indices is None else out_indices
        for index in wanted:
            if not -len(found) <= index < len(found):
                raise ValueError(f"features: out_indices must be in 0..{len(found) - 1}, got {index}")
        self.network = network
        self.feature_info = FeatureInfo([found[index] for index in wanted])

    def forward(self, x: Tensor) -> list[Tensor]:
        places = [level.place for level in self.feature_info.levels]
        outputs = cast(Backbone, self.network).watched(x, places)
        return [outputs[place] for place in places]
