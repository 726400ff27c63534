"""What a reader has: files that the pages name, and the command."""

from __future__ import annotations

import io
import json
import sys
import tarfile
from pathlib import Path

import numpy as np
from docs.server import CLIENT


def pack(shards: Path, photos: Path) -> None:
    """The photos as shards: two to train with and one to judge by."""
    shards.mkdir()
    for place, name in enumerate(("train-000", "train-001", "val-000")):
        with tarfile.open(shards / f"{name}.tar", "w") as archive:
            for label, kind in enumerate(("cat", "dog")):
                for path in sorted((photos / kind).iterdir())[place::3]:
                    archive.add(path, f"{kind}{path.name}")
                    info = tarfile.TarInfo(f"{kind}{path.stem}.cls")
                    info.size = 1
                    archive.addfile(info, io.BytesIO(b"%d" % label))
    (shards / "classes.txt").write_text("cat\ndog\n")


def make(folder: Path, place: str) -> Path:
    """The folder with everything in it; the folder of commands for the PATH. place: where ``server.py`` answers."""
    from PIL import Image

    random = np.random.default_rng(0)

    def picture(side: int) -> Image.Image:
        return Image.fromarray(random.integers(0, 256, (side, side + 8, 3), dtype=np.uint8))

    for name in ("cat", "dog"):
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(12):
            picture(70 + number).save(folder / "photos" / name / f"{number}.png")
    pack(folder / "pet-shards", folder / "photos")
    for name in ("one.jpg", "two.jpg", "one.png", "two.png"):
        picture(90).save(folder / name)
    darts = "Genotype(normal=[('sep_conv_3x3', 0), ('skip_connect', 1)], normal_concat=[2], "
    (folder / "genotypes.py").write_text(
        f"DARTS_V1 = {darts}reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1)], reduce_concat=[2])\n"
    )
    images = random.integers(0, 256, (60, 12, 12, 3), dtype=np.uint8)
    labels = np.arange(60) % 3
    arrays = {"x_train": images[:45], "y_train": labels[:45], "x_test": images[45:], "y_test": labels[45:]}
    np.savez(folder / "my_images.npz", **arrays)
    np.savez(folder / "cifar2000.npz", **{name: arrays[name] for name in arrays})
    start = {"version": 1, "inputs": 2, "seq": [0, 0, 0], "concat": [2, 3, 4, 5], "reductions": [1]}
    (folder / "my.json").write_text(json.dumps({**start, "genes": [["skip_connect:2<-0", "sep_conv_3x3:3<-1"]]}))
    (folder / "cifar").mkdir()
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        rows = random.integers(0, 256, (40, 1 + 3 * 32 * 32), dtype=np.uint8)
        rows[:, 0] = np.arange(40) % 10
        rows.tofile(folder / "cifar" / f"{name}.bin")
    commands = folder / "commands"
    commands.mkdir()
    (commands / "ddarts").write_text(CLIENT.format(python=sys.executable, place=place))
    (commands / "ddarts").chmod(0o755)
    return commands
