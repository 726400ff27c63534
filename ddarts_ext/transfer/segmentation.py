"""Segmentation networks of torchvision."""

from __future__ import annotations

from typing import Any

from torch import nn

from ddarts_ext.transfer.body import Body, source_of, torchvision_part

HEADS = ("fcn", "deeplabv3")


def segmenter(
    source: Any,
    head: str = "fcn",
    *,
    num_classes: int,
    out_index: int = -1,
    auxiliary: bool = False,
    frozen_norms: bool | None = None,
    **options: Any,
) -> nn.Module:
    """A segmentation network of torchvision whose backbone is a network of this package.

    source, options, frozen_norms: as :func:`detector` takes them. head: ``fcn`` (1411.4038) or ``deeplabv3``
    (1706.05587), on the resolution ``out_index`` of the network, by default its last. num_classes: with the
    background. auxiliary: one more ``fcn`` head on the resolution before, for training.

    Returns torchvision's module: float images [N, C, H, W], normalised as the network's were, -> ``out`` (and ``aux``)
    [N, num_classes, H, W] by name. Raises ValueError, TypeError or ImportError naming the argument.
    """
    if head not in HEADS:
        raise ValueError(f"segmenter: head must be one of {', '.join(HEADS)}, got {head!r}")
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 2:
        raise ValueError(f"segmenter: num_classes must be a whole number >= 2, got {num_classes!r}")
    parts = torchvision_part("segmenter", "models.segmentation")
    found = source_of("segmenter", source, **options)
    levels = len(found.network.levels())
    if not -levels <= out_index < levels:
        raise ValueError(f"segmenter: out_index must be in 0..{levels - 1}, got {out_index}")
    place = out_index % levels
    if auxiliary and not place:
        raise ValueError("segmenter: auxiliary must be False with the first resolution, as there is none before it")
    frozen = found.trained if frozen_norms is None else frozen_norms
    places, names = ([place - 1, place], ["aux", "out"]) if auxiliary else ([place], ["out"])
    body = Body(found.network, places, names, frozen=frozen)
    channels = dict(zip(names, body.info.channels(), strict=True))
    extra = parts.fcn.FCNHead(channels["aux"], num_classes) if auxiliary else None
    if head == "fcn":
        built: nn.Module = parts.FCN(body, parts.fcn.FCNHead(channels["out"], num_classes), extra)
    else:
        built = parts.DeepLabV3(body, parts.deeplabv3.DeepLabHead(channels["out"], num_classes), extra)
    return built
