"""What suits a search on few images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddarts_ext.search.methods.method import Method

_TRAVEL = 8.8
_SGD_TRAVEL = 4.1
"""Sum of all rates in the published search of DA2S in NAS-Bench-201: 3e-3 in every fifth step of 35 epochs."""
_LARGEST_RATE = 0.1
_SIMILARITY = 0.1
"""Of the gradients of 32 images, which are noisier: on the digits the mean cosine of an op is .2 in the first epoch and
below .1 in the third; the published .4 would stop all ops at once."""


def preset(
    method: Method, size: tuple[int, int], train_images: int, split: float, said: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Defaults that suit the data where the published ones (32x32, 50,000 images) do not; empty for large data.

    Few images mean few steps. A step of Adam moves an alpha by at most its rate, so the sum of all rates bounds how far
    an alpha can come: 19.5 in the published search, while a weight of .85 takes 1.7. The rate, which falls by a cosine,
    is raised until the sum is 8.8, which lets alphas decide. For the first epochs they wait for the weights. Batches of
    32 double the steps. Alphas that move fast meet cells that hardly contribute yet: a larger floor bounds the gradient
    of the ablation loss, which is about its weight over the floor times the cross-entropy's (on 2,000 images of
    CIFAR-10 up to 15 times with 0.001, 13 with 0.01).

    said: settings that are known, by name: ``epochs``, ``batch`` and ``alpha_lr`` count here.
    """
    if train_images > 10_000:
        return {}
    small = max(size) <= 16
    if method.random:
        return {"cells": 3 if method.space == "nasbench201" else 4, "channels": 8} if small else {}
    if method.shrinking is not None:
        sizes = {"cells": 3 if method.space == "nasbench201" else 5, "channels": 8, "weight_lr": 0.05}
        return sizes if small else {}
    cells = 3 if method.space == "nasbench201" else 4
    found: dict[str, Any] = {"cells": cells, "channels": 8} if small else {}
    found["batch"] = 32
    if method.stopping.op_stop:
        found["op_stop_similarity"] = _SIMILARITY
    if method.selection.selection != "none":
        found["selection_every"] = 1
    epochs = said.get("epochs", method.epochs)
    waiting = max(method.architect.alpha_start, min(2, epochs // 4))
    stages = method.stages.count
    if stages > 1 and small:
        found["stage_cells"] = tuple(range(stages)) if cells == 4 else tuple(range(0, 3 * stages, 3))
    timed = stages > 1 or method.mixing.sampler != "none" or method.mixing.partial_channels > 1
    if method.objectives.op_entropy_weight or timed:
        # The strength of the terms is told in parts of the whole search, and so is when they begin.
        waiting = min(waiting, round(method.architect.alpha_start * epochs / method.epochs))
    found["alpha_start"] = waiting
    if method.relaxation == "sigmoid":
        found["weight_lr"] = 0.01
    if method.objectives.ablation_weight:
        found["ablation_delta"] = 0.05
    steps = max(1, int(split * train_images) // said.get("batch", 32)) * max(1, epochs // stages - waiting)
    if method.architect.alpha_optimizer == "sgd":
        rate = min(_LARGEST_RATE, _SGD_TRAVEL * method.architect.alpha_every / steps)
        return {**found, "alpha_lr": float(f"{rate:.2g}")} if rate > method.architect.alpha_lr else found
    rate = min(_LARGEST_RATE, 2 * _TRAVEL / steps)
    if rate > method.architect.alpha_lr and "alpha_lr" not in said:
        found["alpha_lr"], found["alpha_lr_min"] = float(f"{rate:.2g}"), 0.001
    return found
