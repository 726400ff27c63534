"""What detectors and segmentation networks stand on: the network without its head, and what is known of its images."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from ddarts_ext.genotype import Genotype
from ddarts_ext.nn import create_model
from ddarts_ext.nn.features import Backbone, FeatureInfo, FeatureNetwork
from ddarts_ext.training import load_network
from ddarts_ext.training.trained import TrainedNetwork


@dataclass(frozen=True)
class Source:
    """network: on its device. mean, std: per channel, of pixel values between 0 and 1, where they are known. trained:
    whether its weights are."""

    network: Backbone
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    trained: bool = False


def source_of(command: str, given: Any, **options: Any) -> Source:
    """The network that ``given`` means.

    given: the folder of a training, a file of its weights, or what :func:`ddarts_ext.load_network` gives, with their
    weights; a network of ``ddarts_ext.nn``, as it is; else what :func:`ddarts_ext.create_model` reads, with new weights
    and the ``options`` of that function.
    Raises ValueError or TypeError naming the argument.
    """
    if isinstance(given, (str, Path)) and _is_training(given):
        given = load_network(given)
    if isinstance(given, (TrainedNetwork, nn.Module)):
        if options:
            raise ValueError(f"{command}: {min(options)} must be left out with a network that exists, got {options}")
        if isinstance(given, TrainedNetwork):
            about = given.description
            return Source(cast(Backbone, given.network), about.mean, about.std, trained=True)
        if not callable(getattr(given, "levels", None)):
            raise TypeError(f"{command}: source must be a network of ddarts_ext.nn, got {type(given).__name__}")
        return Source(cast(Backbone, given))
    if not isinstance(given, (str, Path, Genotype)):
        raise TypeError(
            f"{command}: source must be the folder of a training, a network or a genotype, got {type(given).__name__}"
        )
    network = create_model(given, num_classes=0, **{"stem": "imagenet", **options})
    return Source(cast(Backbone, network))


def _is_training(given: str | Path) -> bool:
    path = Path(given)
    try:
        return path.suffix == ".safetensors" or (path / "network.json").is_file()
    except (OSError, ValueError):  # text of a genotype, which is no path
        return False


class Body(nn.Module):
    """Images -> feature maps by name, from the largest resolution.

    network: its head is taken off. indices: places among its resolutions, see :class:`FeatureNetwork`. names: of the
    feature maps. frozen: the network stays in evaluation mode, that is norms keep the statistics that they have, and no
    path is dropped; its weights learn all the same.
    """

    def __init__(self, network: Backbone, indices: Sequence[int], names: Sequence[str], *, frozen: bool) -> None:
        super().__init__()
        network.reset_classifier(0)
        if getattr(network, "auxiliary", None) is not None:
            network.auxiliary = None  # type: ignore[assignment]
        self.features = FeatureNetwork(network, indices)
        self.names, self.frozen = tuple(names), frozen
        self.train(self.training)

    @property
    def info(self) -> FeatureInfo:
        """Channels and reductions of the feature maps."""
        return self.features.feature_info

    def forward(self, x: Tensor) -> Mapping[str, Tensor]:
        return OrderedDict(zip(self.names, self.features(x), strict=True))

    def train(self, mode: bool = True) -> Body:
        super().train(mode)
        if self.frozen:
            self.features.eval()
        return self


def torchvision_part(command: str, name: str) -> Any:
    """A module of torchvision. Raises ImportError where there is none."""
    from importlib import import_module

    try:
        return import_module(f"torchvision.{name}")
    except (ImportError, RuntimeError) as error:  # built for another torch: an op that does not exist
        raise ImportError(
            f"{command}: the package torchvision must be there and fit this torch "
            f"(pip install 'ddarts_ext[vision]'): {error}"
        ) from error
