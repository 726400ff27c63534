"""Image folders and shards as a :class:`Dataset`. Small ones are read whole, large ones stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from statistics import median_low

import torch

from ddarts_ext.data.augment import suited
from ddarts_ext.data.dataset import Dataset, MemorySplit, Split, pixel_statistics
from ddarts_ext.data.decode import Header, pillow, read_header, read_picture
from ddarts_ext.data.listing import ImageFile, list_images
from ddarts_ext.data.shards.listing import list_shards
from ddarts_ext.data.stream import StreamSplit

IN_MEMORY_BYTES = 512 << 20
LARGEST_SIDE = 4096
_CAP = 224
_SAMPLE, _TEST_SAMPLE = 2048, 256


Shape = tuple[tuple[int, int], int]


def load_folder(source: Path | str, image_size: int | None = None, shape: Shape | None = None) -> Dataset:
    """Read an image folder or, where ``source`` is text, the shards of a pattern. Images are scaled until they cover
    the target size, then cut to it in the middle.

    image_size: side of the square, at most 4096 pixels; without it the median height and width of all files, each at
    most 224. Colour if any file is. shape: ((height, width), channels) instead of both. The header of every file is
    checked; of a folder that streams, 2048 training and 256 held-out images spread over it are decoded too. Raises
    ValueError or FileNotFoundError that names the file.
    """
    image_module = pillow()
    image_module.init()
    if image_size is not None and not _is_side(image_size):
        raise ValueError(f"data: image_size must be a whole number from 1 to {LARGEST_SIDE} pixels, got {image_size!r}")
    if shape is not None and shape[1] not in (1, 3):
        raise ValueError(f"data: image files have 1 or 3 channels, and not the {shape[1]} that are asked for")
    if isinstance(source, Path):
        name, listing = source.resolve().name, list_images(source)
        headers = _headers(listing.train + listing.test)
    else:
        name, listing, headers = list_shards(source)
    size, channels, said = _shape(headers, image_size) if shape is None else (*shape, "")
    train, test = (_split(files, size, channels) for files in (listing.train, listing.test))
    if isinstance(train, MemorySplit):
        sample = train.images
    else:
        sample = torch.stack([read_picture(f.path, size, channels) for f in _spread(listing.train, _SAMPLE)])
    if not isinstance(test, MemorySplit):
        for file in _spread(listing.test, _TEST_SAMPLE):
            read_picture(file.path, size, channels)
    mean, std = pixel_statistics(sample)
    return Dataset(
        name=name,
        train=train,
        test=test,
        classes=listing.classes,
        size=size,
        channels=channels,
        mean=mean,
        std=std,
        augmentation=suited(size, channels),
        note="; ".join(filter(None, [said, *listing.notes()])),
    )


def _is_side(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST_SIDE


def _headers(files: Sequence[ImageFile]) -> list[Header]:
    # Threads, as most of the time is waiting for a disk, and a disk at the other end of a network takes requests
    # in parallel. Leaving the pool ends what is still waiting once a file is bad.
    with ThreadPool(min(8, len(files))) as pool:
        return list(pool.imap((lambda file: read_header(file.path)), files, chunksize=16))


def _shape(headers: Sequence[Header], image_size: int | None) -> tuple[tuple[int, int], int, str]:
    """Size, channels, and how they were decided."""
    sizes = Counter(header.size for header in headers)
    if image_size is None:
        height, width = (min(median_low(header.size[i] for header in headers), _CAP) for i in (0, 1))
    else:
        height = width = image_size
    coloured = sum(header.colour for header in headers)
    channels = 3 if coloured else 1
    said = [f"images of {height}x{width}, {'colour' if coloured else 'grey'}"]
    others = len(headers) - sizes[height, width]
    if others:
        why = "" if image_size else f" (the median size, at most {_CAP} a side)"
        said.append(f"to which {others} of {len(headers)} files are scaled and cut{why}")
    if 0 < coloured < len(headers):
        said.append(f"and {len(headers) - coloured} of {len(headers)} files are grey")
    return (height, width), channels, ", ".join(said)


def _spread(files: Sequence[ImageFile], count: int) -> Sequence[ImageFile]:
    return files[:: max(1, len(files) // count)]


def _split(files: Sequence[ImageFile], size: tuple[int, int], channels: int) -> Split:
    if len(files) * channels * size[0] * size[1] > IN_MEMORY_BYTES:
        return StreamSplit(tuple(files), size, channels, torch.device("cpu"))
    images = torch.stack([read_picture(file.path, size, channels) for file in files])
    return MemorySplit(images, torch.tensor([file.label for file in files]))
