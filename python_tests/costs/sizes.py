"""Networks of several spaces and shapes."""

from __future__ import annotations

from typing import Any

from ddarts_ext import spaces
from ddarts_ext.costs import NetworkSizes
from ddarts_ext.search.architecture import owners


def sizes(space: str = "darts", **changed: Any) -> NetworkSizes:
    found: dict[str, Any] = {"cells": 4, "channels": 4, "size": (8, 8), "stem": "cifar", "sharing": "individual"}
    found |= changed
    known = spaces.get(space, steps=found.pop("steps", None))
    reductions = tuple(found.pop("reductions", known.reductions(found["cells"])))
    owner = owners(found.pop("sharing"), found["cells"], reductions)
    return NetworkSizes(known, classes=10, in_channels=3, reductions=reductions, owner=owner, **found)


EVERY = {
    "darts": sizes(),
    "normal and reduction cells": sizes("darts_none", sharing="normal_reduction", cells=6, channels=6),
    "odd images": sizes(size=(9, 13)),
    "ImageNet": sizes(stem="imagenet", size=(64, 48)),
    "ImageNet, stride 4": sizes(stem="imagenet_stride4", size=(33, 32)),
    "dartopti": sizes("dartopti", cells=3, steps=5),
    "isdarts": sizes("isdarts", sharing="normal_reduction"),
    "reductions at the ends": sizes(reductions=(0, 3)),
    "no reduction": sizes(reductions=()),
    "nasbench201": sizes("nasbench201", cells=6, sharing="normal_reduction"),
}
