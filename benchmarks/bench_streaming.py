"""JPEGs of 500x375 to 224x224, streamed from a folder and from shards of the same files, in a permutation, by one core.

    python benchmarks/bench_streaming.py [images]

The batches of both are compared first. Then they are read in turn in this process, and with the two worker processes
that a run has. Images a second of processor time are what one core decodes, whoever else is at work on the machine.
The index of the shards is timed without and with its cache. Exits with 1 where batches differ, or where shards take
over a tenth longer.
"""

from __future__ import annotations

import io
import os
import statistics
import sys
import tarfile
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ddarts_ext.data import Dataset, folder, load
from ddarts_ext.data.stream import StreamSplit

CLASSES, BATCH, ROUNDS, SHARDS = 10, 20, 5, 4


def photograph(random: np.random.Generator) -> bytes:
    """Large and small shapes, and grain: about as many bytes as a file of ImageNet."""
    from PIL import Image

    shapes = [Image.fromarray(random.integers(0, 256, (n, n, 3), dtype=np.uint8)) for n in (5, 40)]
    coarse, fine = (np.asarray(shape.resize((500, 375), Image.Resampling.BICUBIC), dtype=float) for shape in shapes)
    pixels = 0.7 * coarse + 0.3 * fine + random.normal(0, 12, (375, 500, 3))
    content = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(content, "JPEG", quality=94)
    return content.getvalue()


def write(root: Path, count: int) -> int:
    """The same images as a folder and as shards, a tenth of them in ``val``; their mean size in bytes."""
    random = np.random.default_rng(0)
    (root / "shards").mkdir(parents=True)
    names = [*(f"train-{i}" for i in range(SHARDS)), "val"]
    archives = {name: tarfile.open(root / "shards" / f"{name}.tar", "w") for name in names}  # noqa: SIM115
    whole = 0
    for i in range(count):
        label, part, content = i % CLASSES, "val" if i // CLASSES % 10 == 9 else "train", photograph(random)
        path = root / "folder" / part / f"{label}" / f"{i:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        whole += len(content)
        for suffix, member in (("jpg", content), ("cls", b"%d" % label)):
            info = tarfile.TarInfo(f"{i:06}.{suffix}")
            info.size = len(member)
            archives["val" if part == "val" else f"train-{i % SHARDS}"].addfile(info, io.BytesIO(member))
    for archive in archives.values():
        archive.close()
    return whole // count


def processor() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def rates(data: Dataset, rows: torch.Tensor, workers: int) -> tuple[float, float]:
    """Images a second of processor time, and by the clock."""
    assert isinstance(data.train, StreamSplit)
    split = replace(data.train, workers=workers)
    began, cpu = time.perf_counter(), processor()
    images = sum(len(labels) for _, labels in split.batches(rows))
    return images / (processor() - cpu), images / (time.perf_counter() - began)


def timed_load(data: str) -> tuple[Dataset, float]:
    began = processor()
    return load(data, image_size=224), processor() - began


def main(count: int) -> int:
    torch.set_num_threads(1)
    folder.IN_MEMORY_BYTES = 0
    folder._SAMPLE = folder._TEST_SAMPLE = 1  # what is decoded for the statistics is the same of both
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["XDG_CACHE_HOME"] = f"{scratch}/cache"
        print(f"{count} JPEGs of 500x375, {write(Path(scratch), count) / 1000:.0f} kB each, in turn {ROUNDS} times")
        places = {"folder": f"{scratch}/folder", "shards": f"shards:{scratch}/shards"}
        data = {}
        for name, place in places.items():
            data[name], seconds = timed_load(place)
            print(f"{name}: headers read in {1000 * seconds / count:.2f} ms an image")
        print(f"shards: index from the cache in {1000 * timed_load(places['shards'])[1] / count:.2f} ms an image")
        rows = torch.randperm(len(data["folder"].train), generator=torch.Generator().manual_seed(0))
        rows = rows[: len(rows) // BATCH * BATCH].view(-1, BATCH)
        pairs = zip(*(one.train.batches(rows) for one in data.values()), strict=True)
        same = all(torch.equal(a, b) and torch.equal(x, y) for (a, x), (b, y) in pairs)
        print(f"batches are {'equal' if same else 'DIFFERENT'}")
        ratio = 0.0
        for workers in (0, 2):
            found: dict[str, list[tuple[float, float]]] = {name: [] for name in data}
            for _ in range(ROUNDS):
                for name, one in data.items():
                    found[name].append(rates(one, rows, workers))
            middle = {
                name: [statistics.median(column) for column in zip(*each, strict=True)] for name, each in found.items()
            }
            for name, (cpu, clock) in middle.items():
                print(f"{workers or 'no'} workers, {name}: {cpu:.0f} images a core second, {clock:.0f} a second")
            ratio = max(ratio, middle["folder"][0] / middle["shards"][0])
    return 0 if same and ratio < 1.1 else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 400))
