"""A trained network as files for whatever does not know this package."""

from ddarts_ext.export.formats import FORMATS, OPSET, export, for_inference

__all__ = ["FORMATS", "OPSET", "export", "for_inference"]
