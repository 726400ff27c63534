"""Which images do what, whatever the order in which a source lists them.

A folder is read class by class, and many people's arrays are sorted. So images are counted in an order that follows
from what they are, and divided by a stratified permutation that follows from a seed: the same images, listed otherwise,
give the same run.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from ddarts_ext.data.dataset import Split


def canonical_order(split: Split) -> Tensor:
    """A permutation [N] (int64, CPU) that lists the images of ``split`` in an order of their own.

    It sorts by ``split.keys()``, one bytes object an image; a split without keys is taken as it lies.
    """
    keys = getattr(split, "keys", None)
    if keys is None:
        return torch.arange(len(split))
    found = keys()
    return torch.tensor(sorted(range(len(found)), key=found.__getitem__), dtype=torch.long)


def digest(split: Split, indices: Tensor) -> str:
    """What tells one set of images from another, in hexadecimal, whatever their order; of their number without keys."""
    keys = getattr(split, "keys", None)
    found = [str(len(indices)).encode()]
    if keys is not None:
        every = keys()
        found = sorted(every[i] for i in indices.tolist())
    return hashlib.blake2b(b"".join(found), digest_size=16).hexdigest()


def divided(labels: Tensor, order: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Two parts of the images in ``order``, as indices: about ``fraction`` of every class, and the rest.

    labels: int64 [N], by index. The parts follow from ``seed`` by one stratified permutation. Where a class has a
    single image, where a part would have fewer images than there are classes, and where labels are numbers, float32
    [N, K], the permutation alone decides. Raises
    ValueError for fewer than 2 images and for a fraction that is not between 0 and 1.
    """
    from sklearn.model_selection import ShuffleSplit, StratifiedShuffleSplit

    count = len(order)
    if count < 2 or not 0.0 < fraction < 1.0:
        raise ValueError(
            f"data: a split needs 2 or more images and a fraction between 0 and 1, got {count} and {fraction}"
        )
    first = min(max(int(fraction * count), 1), count - 1)
    numbers = labels.is_floating_point()
    classes = np.zeros(count) if numbers else labels.cpu()[order].numpy()
    sizes = np.unique(classes, return_counts=True)[1]
    whole = not numbers and sizes.min() > 1 and min(first, count - first) >= len(sizes)
    kind = StratifiedShuffleSplit if whole else ShuffleSplit
    random = np.random.RandomState(np.random.MT19937(np.random.SeedSequence(seed)))
    splitter = kind(n_splits=1, train_size=first, test_size=count - first, random_state=random)
    ours, theirs = next(splitter.split(classes, classes))
    return order[torch.from_numpy(np.sort(ours))], order[torch.from_numpy(np.sort(theirs))]
