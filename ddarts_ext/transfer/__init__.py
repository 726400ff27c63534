"""Detectors and segmentation networks of torchvision on a network that was searched and trained here."""

from ddarts_ext.transfer.detection import DETECTORS, detector
from ddarts_ext.transfer.segmentation import HEADS, segmenter

__all__ = ["DETECTORS", "HEADS", "detector", "segmenter"]
