"""How a network that is being trained does on images that it does not train on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch

from ddarts_ext.data import Dataset, Split
from ddarts_ext.data.batches import in_order, judged_together
from ddarts_ext.runs.objective import Objective
from ddarts_ext.runs.ranks import ALONE, Ranks
from ddarts_ext.runs.sums import Sums


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
    objective: Objective | None = None,
    ranks: Ranks = ALONE,
) -> None:
    """Add to ``sums`` the loss and the metric on ``split`` by ``name``, and with ``top`` the images whose class is
    among so many most probable ones; the network is left in evaluation mode. batch: of the training. objective: what
    loss and metric are, by default those of classification. ranks: each judges a part, and all have the sums of all."""
    how = objective or Objective()
    network.eval()
    own = Sums() if ranks.several else sums
    for rows in in_order(torch.arange(len(split)), judged_together(batch, dataset.size)):
        mine = ranks.judged(rows)
        for images, labels in split.batches(mine) if mine.shape[1] else ():
            with autocast():
                logits = network(dataset.normalise(images))
                loss = how.loss(logits, labels)
            how.judge(own, name, logits, labels, loss)
            if top:
                among = (logits.topk(top, 1).indices == labels[:, None]).sum()
                own.add(f"{name}_top{top}", among, len(labels))
    if ranks.several:
        ranks.add_up(own)
        sums.take(own)
