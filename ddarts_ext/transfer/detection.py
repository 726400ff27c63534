"""Detectors of torchvision over a pyramid of feature maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ddarts_ext.transfer.body import Body, source_of, torchvision_part

DETECTORS = ("retinanet", "faster_rcnn", "mask_rcnn")
_LEVELS = {"retinanet": 3, "faster_rcnn": 4, "mask_rcnn": 4}
ASPECTS = (0.5, 1.0, 2.0)


class Pyramid(nn.Module):
    """A :class:`Body` under a feature pyramid (FPN, 1612.03144), as torchvision's detectors want a backbone."""

    def __init__(self, body: Body, pyramid: nn.Module, channels: int) -> None:
        super().__init__()
        self.body, self.fpn, self.out_channels = body, pyramid, channels

    def forward(self, x: Tensor) -> Mapping[str, Tensor]:
        found: Mapping[str, Tensor] = self.fpn(self.body(x))
        return found


def detector(
    source: Any,
    kind: str = "retinanet",
    *,
    num_classes: int,
    out_indices: Sequence[int] | None = None,
    pyramid_channels: int = 256,
    frozen_norms: bool | None = None,
    model: Mapping[str, Any] | None = None,
    **options: Any,
) -> nn.Module:
    """A detector of torchvision whose backbone is a network of this package.

    source: the folder of a training (with its weights, mean and std), what :func:`ddarts_ext.load_network` gives, a
    network of ``ddarts_ext.nn``, or what :func:`ddarts_ext.create_model` reads, with new weights and ``options`` of
    that function (``channels``, ``stem``, by default that of large images, ...).
    kind: ``retinanet`` (1708.02002), ``faster_rcnn`` (1506.01497) or ``mask_rcnn`` (1703.06870).
    num_classes: as torchvision counts, with the background as class 0.
    out_indices: which resolutions of the network the pyramid stands on (``network.feature_info``), by default the last
    three, or four with an R-CNN, as far as there are. pyramid_channels: of every map of the pyramid.
    frozen_norms: norms of the network keep their statistics, as detectors train on few images at once; by default with
    trained weights. model: arguments of torchvision's class, such as ``{"min_size": 600, "max_size": 1000}``.

    Anchors follow the reductions of the maps: four times the reduction and 2^(1/3) and 2^(2/3) times that (RetinaNet),
    eight times (R-CNN). Returns torchvision's module: in training mode (images, targets) -> losses by name, in
    evaluation mode images -> boxes, labels and scores. Raises ValueError, TypeError or ImportError naming the argument.
    """
    if kind not in DETECTORS:
        raise ValueError(f"detector: kind must be one of {', '.join(DETECTORS)}, got {kind!r}")
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 2:
        raise ValueError(f"detector: num_classes must be a whole number >= 2, background included, got {num_classes!r}")
    detection, ops = torchvision_part("detector", "models.detection"), torchvision_part("detector", "ops")
    found = source_of("detector", source, **options)
    levels = len(found.network.levels())
    indices = range(-min(_LEVELS[kind], levels), 0) if out_indices is None else out_indices
    frozen = found.trained if frozen_norms is None else frozen_norms
    body = Body(found.network, indices, [str(index) for index in range(len(indices))], frozen=frozen)
    # RetinaNet's two more levels are convolutions of the last map, those of the R-CNNs one maximum of it.
    blocks = ops.feature_pyramid_network
    extra = (
        blocks.LastLevelP6P7(pyramid_channels, pyramid_channels) if kind == "retinanet" else blocks.LastLevelMaxPool()
    )
    pyramid = ops.FeaturePyramidNetwork(body.info.channels(), pyramid_channels, extra_blocks=extra)
    backbone = Pyramid(body, pyramid, pyramid_channels)
    reductions = body.info.reduction()
    reductions += [reductions[-1] * 2 ** (step + 1) for step in range(2 if kind == "retinanet" else 1)]
    arguments = _arguments(kind, detection, ops, reductions, body.names)
    if found.mean is not None:
        arguments |= {"image_mean": list(found.mean), "image_std": list(found.std or ())}
    build = {"retinanet": detection.RetinaNet, "faster_rcnn": detection.FasterRCNN, "mask_rcnn": detection.MaskRCNN}
    built: nn.Module = build[kind](backbone, num_classes=num_classes, **{**arguments, **(model or {})})
    return built


def _arguments(kind: str, detection: Any, ops: Any, reductions: Sequence[int], names: Sequence[str]) -> dict[str, Any]:
    """Anchors for every map of the pyramid, and what reads boxes from the maps of the network."""
    octaves = [4 * 2 ** (third / 3) for third in range(3)] if kind == "retinanet" else [8]
    sizes = tuple(tuple(int(reduction * octave) for octave in octaves) for reduction in reductions)
    anchors = detection.anchor_utils.AnchorGenerator(sizes, (ASPECTS,) * len(sizes))
    if kind == "retinanet":
        return {"anchor_generator": anchors}
    arguments = {"rpn_anchor_generator": anchors, "box_roi_pool": ops.MultiScaleRoIAlign(list(names), 7, 2)}
    if kind == "mask_rcnn":
        arguments["mask_roi_pool"] = ops.MultiScaleRoIAlign(list(names), 14, 2)
    return arguments
