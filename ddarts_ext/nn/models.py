"""Networks by name, with the arguments that timm gave such functions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ddarts_ext.genotype import Genotype
from ddarts_ext.genotype.files import image_architectures
from ddarts_ext.nn.features import FeatureNetwork
from ddarts_ext.nn.nasbench201 import NASBench201Network
from ddarts_ext.nn.network import DiscreteNetwork, build_network
from ddarts_ext.runs.folder import RunFolder


def list_models() -> tuple[str, ...]:
    """The names of the published architectures that :func:`create_model` builds."""
    return image_architectures()


def create_model(
    name: str | Path | Genotype,
    *,
    num_classes: int = 10,
    in_chans: int = 3,
    channels: int = 36,
    cells: int | None = None,
    stem: str = "cifar",
    drop_path_rate: float = 0.0,
    auxiliary: bool = False,
    features_only: bool = False,
    out_indices: Sequence[int] | None = None,
) -> DiscreteNetwork | NASBench201Network | FeatureNetwork:
    """A network with new weights.

    name: a published architecture (:func:`list_models`), or whatever else :meth:`Genotype.load` reads: a genotype file,
    the folder of a search; or a :class:`Genotype`. num_classes: 0 leaves the classifier out. channels: of the first
    cell. cells: another number than that of the genotype, for one of one normal and one reduction cell. stem: ``cifar``
    keeps the size of images, ``imagenet`` takes an eighth of it, for images above 64 pixels.
    features_only: a :class:`FeatureNetwork` of ``out_indices`` instead, which gives a list of feature maps.

    Raises ValueError or TypeError naming the argument.
    """
    if isinstance(num_classes, bool) or not isinstance(num_classes, int):
        raise TypeError(f"create_model: num_classes must be a whole number, got {num_classes!r}")
    if num_classes < 0:
        raise ValueError(f"create_model: num_classes must be >= 0, got {num_classes}")
    if out_indices is not None and not features_only:
        raise ValueError("create_model: features_only must be True with out_indices, got False")
    if not isinstance(name, Genotype) and _is_training(Path(name)):
        raise ValueError(
            f"create_model: name must be no training, whose network load_network({str(name)!r}) gives with its "
            f"weights, got {name}; of its genotype alone: {Path(name) / 'genotype.json'}"
        )
    genotype = name if isinstance(name, Genotype) else Genotype.load(name)
    if cells is not None:
        genotype = genotype.with_layers(cells)
    network = build_network(genotype, channels, num_classes or 1, in_chans, auxiliary, stem, drop_path_rate)
    if features_only:
        network.reset_classifier(0)
        return FeatureNetwork(network, out_indices)
    if num_classes == 0:
        network.reset_classifier(0)
    return network


def _is_training(folder: Path) -> bool:
    try:
        there = (folder / "config.json").is_file()
    except (OSError, ValueError):  # text of a genotype, which is no path
        return False
    return there and RunFolder(folder, "create_model").config().get("command") == "train"
