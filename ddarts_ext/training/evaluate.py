"""How good a trained network is on some images."""

from __future__ import annotations

import torch
from torch import nn

from ddarts_ext.data import Dataset, Split
from ddarts_ext.data.batches import in_order


@torch.no_grad()
def accuracy(network: nn.Module, dataset: Dataset, split: Split, device: torch.device, batch: int = 256) -> float:
    """The share of the images of ``split`` whose class the network finds; it is left in evaluation mode.

    dataset: how images are normalised. The images are moved to ``device``, where the network is.
    """
    network.eval()
    images = split.to(device)
    hits = torch.zeros((), dtype=torch.long, device=device)
    for rows in in_order(torch.arange(len(split)), batch):
        for pixels, labels in images.batches(rows):
            hits += (network(dataset.normalise(pixels)).argmax(1) == labels).sum()
    return int(hits) / len(split)
