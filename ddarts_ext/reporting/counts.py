"""Parameters and multiply-adds of the network of a run, as texts for a table."""

from __future__ import annotations

from typing import Any

import torch

from ddarts_ext.nn.count import count_multiply_adds, count_parameters
from ddarts_ext.nn.network import build_network
from ddarts_ext.reporting.sources import Run

CHANNELS = 36
"""Of the network of a search, which has none yet: the published ones."""
_MOST = {"cells": 200, "entries": 20_000, "channels": 2_048, "size": 4_096, "classes": 100_000}


def counts(run: Run) -> dict[str, str]:
    """Of a training its network; of a finished search the network of its result with 36 channels. Both for images and
    classes of the run. Empty where there is no network, or what a folder tells of it cannot be built."""
    if run.genotype is None:
        return {}
    try:
        return _counted(run)
    except (KeyError, ValueError, TypeError, RuntimeError, OverflowError):
        return {}


def _counted(run: Run) -> dict[str, str]:
    genotype, images = run.genotype, run.config["images"]
    if genotype is None:
        return {}
    channels = run.config["channels"] if run.kind == "train" else CHANNELS
    height, width = images["size"]
    asked = {
        "cells": genotype.layers,
        "entries": sum(map(len, genotype.cells)),
        "channels": channels,
        "size": max(height, width),
        "classes": len(images["classes"]),
    }
    if any(not 0 < asked[name] <= most for name, most in _MOST.items()):
        return {}
    with torch.device("meta"):
        network: Any = build_network(
            genotype, channels, len(images["classes"]), images["channels"], False, run.config["stem"]
        )
    adds = count_multiply_adds(network, (images["channels"], height, width))
    return {
        "channels of the network": str(channels),
        "parameters": f"{count_parameters(network, auxiliary=False):,}",
        "multiply-adds": f"{adds.convolutions:,}",
        "multiply-adds, with norms": f"{adds.with_norms:,}",
    }
