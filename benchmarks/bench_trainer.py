"""Images per second of ``ddarts train``: the second epoch of DARTS_V2 (20 cells, C=36) on images of CIFAR's size.

As it is run: with auxiliary head, augmentation, drop path and the judging of the held-out images.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import torch

from ddarts_ext.benchmark import Row
from ddarts_ext.benchmark.kernels import tf32
from ddarts_ext.data import Augmentation, Dataset
from ddarts_ext.data.dataset import MemorySplit
from ddarts_ext.training.trainer import Trainer

BATCH = 96


def images(count: int, seed: int) -> MemorySplit:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return MemorySplit(pixels, torch.arange(count) % 10)


def dataset(count: int) -> Dataset:
    classes = tuple(f"class {i}" for i in range(10))
    half = (0.5, 0.5, 0.5)
    train, test = images(count, 0), images(BATCH, 1)
    return Dataset("synthetic", train, test, classes, (32, 32), 3, half, half, Augmentation())


def measure(device: str, *, channels: int | None = None, **_: object) -> Iterator[Row]:
    """Milliseconds of a batch, held-out images and all."""
    count, width = (BATCH, 8) if device == "cpu" else (BATCH * 24, 36)
    width = channels or width
    precisions = ("float32",) if device == "cpu" else ("float32", "float32 tf32", "bf16")
    for name in precisions:
        with tf32(name.endswith("tf32")) if device != "cpu" else nullcontext():
            trainer = Trainer(
                "DARTS_V2", dataset(count), device=device, epochs=2, batch=BATCH, channels=width,
                precision=name.split()[0],
            )  # fmt: skip
            last = trainer.train().history[-1]
        batches = count // BATCH
        milliseconds = float(last["seconds"]) * 1e3 / batches
        peak = int(float(last["memory_mib"]) * 2**20)
        case = f"DARTS_V2 C={width} [{BATCH},3,32,32]"
        bounds = (milliseconds, milliseconds)
        yield Row("trainer", case, name, milliseconds, bounds, batches, None, None, {}, {}, peak, images=BATCH)
