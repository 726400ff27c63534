"""How a network that is being trained does on images that it does not train on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F

from ddarts_ext.data import Dataset, Split
from ddarts_ext.data.batches import in_order, judged_together
from ddarts_ext.runs.sums import Sums, judge


@torch.no_grad()
def judge_split(
    network: Any,
    dataset: Dataset,
    split: Split,
    name: str,
    sums: Sums,
    autocast: Callable[[], AbstractContextManager[object]],
    batch: int,
    top: int = 0,
) -> None:
    """Add to ``sums`` the loss and the hits on ``split`` by ``name``, and with ``top`` the images whose class is among
    so many most probable ones; the network is left in evaluation mode. batch: of the training."""
    network.eval()
    for rows in in_order(torch.arange(len(split)), judged_together(batch, dataset.size)):
        for images, labels in split.batches(rows):
            with autocast():
                logits = network(dataset.normalise(images))
                loss = F.cross_entropy(logits, labels)
            judge(sums, name, logits, labels, loss)
            if top:
                among = (logits.topk(top, 1).indices == labels[:, None]).sum()
                sums.add(f"{name}_top{top}", among, len(labels))
