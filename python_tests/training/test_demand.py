"""What a run says before its first step: the images as they were read, and the memory that a step really takes."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from runs.shown import Shown
from torch import Tensor, nn

from ddarts_ext import Searcher, _extension
from ddarts_ext.cli import main
from ddarts_ext.data import Augmentation, Dataset, MemorySplit
from ddarts_ext.data.batches import judged_together
from ddarts_ext.nn.memory import StepMemory, kept_bytes, step_memory
from ddarts_ext.nn.stem import suited_stem
from ddarts_ext.training import demand
from ddarts_ext.training.trainer import Trainer


def images(size: int, count: int = 64, note: str = "") -> Dataset:
    split = MemorySplit(torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8), torch.arange(count) % 2)
    return Dataset("noise", split, split, ("a", "b"), (size, size), 3, (0.5,) * 3, (0.2,) * 3, Augmentation(), note)


def test_what_a_backward_pass_keeps_is_counted_once() -> None:
    layer = nn.Linear(5, 7)
    x = torch.zeros(3, 5)
    # tanh keeps what it returns; two of them keep the input of the second, the output of the first, once.
    assert kept_bytes(layer, lambda: layer(x).tanh().tanh()) == 4 * (3 * 5 + 3 * 7 + 3 * 7)
    with torch.no_grad():
        assert kept_bytes(layer, lambda: layer(x).tanh()) == 4 * (3 * 5 + 3 * 7)


def test_counting_leaves_nothing_behind() -> None:
    layer, x, made = nn.Linear(5, 7), torch.randn(3, 5), list[weakref.ref[Tensor]]()

    def forward() -> Tensor:
        between = layer(x).tanh()
        made.append(weakref.ref(between))
        return between.sigmoid()

    gc.disable()  # what only a collection would free counts as left
    try:
        kept_bytes(layer, forward)
        assert made[0]() is None
    finally:
        gc.enable()


def test_memory_grows_with_pixels_and_images() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh())
    small, large = (step_memory(network, network, channels=3, size=(size, size)) for size in (32, 320))
    assert large.per_image == pytest.approx(100 * small.per_image, rel=1e-3)
    assert large.fixed == small.fixed
    assert small.of(7) == small.fixed + 7 * small.per_image
    need = StepMemory(100, 7)
    assert [need.largest_batch(n) for n in (50, 100, 106, 107, 121)] == [0, 0, 0, 1, 3]


_MEASURE = """
import json, resource, sys
import torch
from pathlib import Path
from ddarts_ext import Searcher
from ddarts_ext.cli import main
from ddarts_ext.genotype import Genotype
from ddarts_ext.data import Augmentation, Dataset, MemorySplit
from ddarts_ext.training import demand
from ddarts_ext.training.trainer import Trainer

def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

what = json.loads(sys.argv[1])
size, batch, kind = what.pop("size"), what["batch"], what.pop("kind")
split = MemorySplit(torch.zeros(2 * batch, 3, size, size, dtype=torch.uint8), torch.arange(2 * batch) % 2)
data = Dataset("x", split, split, ("a", "b"), (size, size), 3, (0.5,) * 3, (0.2,) * 3, Augmentation())
found, plain = [], demand.step_memory
def noted(*arguments, **sizes):
    found.append(plain(*arguments, **sizes))
    return found[-1]
plain_times = demand.StepMemory.times
demand.StepMemory.times = lambda self, factor: found.append(plain_times(self, factor)) or found[-1]
demand.step_memory = noted
before = status("VmRSS")
if kind == "train":
    Trainer("DARTS_V2", data, epochs=1, **what).train()
else:
    Searcher(data, kind, epochs=1, **what).search()
print(json.dumps([found[-1].of(batch), status("VmHWM") - before]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
@pytest.mark.skipif(bool(_extension.why_not("mixed_sum", "cpu")), reason="the estimate is of the kernels")
@pytest.mark.parametrize(
    "what",
    [
        {"kind": "ddarts", "size": 16, "cells": 3, "channels": 8, "batch": 96},
        {"kind": "ddarts", "size": 32, "cells": 3, "channels": 16, "batch": 48},
        {"kind": "darts", "size": 96, "cells": 3, "channels": 16, "batch": 24, "stem": "imagenet"},
        {"kind": "darts", "size": 32, "cells": 2, "channels": 8, "batch": 32, "order": 2, "hessian": "exact"},
        {"kind": "train", "size": 32, "channels": 8, "batch": 32, "auxiliary_weight": 0.4},
    ],
    ids=lambda what: f"{what['kind']}-{what['size']}-{what.get('hessian', 'first')}",
)
def test_the_estimate_is_what_a_step_takes(what: dict[str, Any]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, json.dumps(what)], capture_output=True, text=True, check=True
    )
    estimate, peak = json.loads(done.stdout.splitlines()[-1])
    assert peak > 100 << 20
    assert 0.7 < estimate / peak < 1.6


def test_the_first_line() -> None:
    said = Shown()
    search = Searcher(images(8, note="read as it is"), cells=2, channels=4, batch=16, progress=said)
    search._start()
    assert said.lines[0] == "search: read as it is"
    expected = (
        "search: 64 images 8x8 colour in 2 classes, 64 held out; 2 cells, 4 channels, stem cifar, batch 16: about "
    )
    assert said.lines[1].startswith(expected)
    assert said.lines[1].endswith(" free on cpu")


@pytest.mark.parametrize(
    ("free", "said"), [(170 << 20, r"at most [1-9]\d* for the 170 MiB"), (1, "not even one image")]
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, said: str
) -> None:
    monkeypatch.setattr(demand, "available_bytes", lambda device: free)
    with pytest.raises(ValueError, match=rf"search: batch must be .*{said}.*, got 64 images of 16x16"):
        Searcher(images(16), cells=3, channels=16, batch=64, out=tmp_path / "run").search()
    with pytest.raises(ValueError, match=r"train: batch must be .*, got 64 images of 16x16"):
        Trainer("DARTS_V2", images(16), channels=16, batch=96, out=tmp_path / "run").train()
    assert not (tmp_path / "run").exists()


def test_looking_ahead_changes_nothing() -> None:
    search = Searcher(images(8), cells=2, channels=4, batch=16)
    state = search._initial()
    before = {name: value.clone() for name, value in state.net.state_dict().items()}
    generator = torch.get_rng_state()
    search._announce(state)
    assert all(torch.equal(value, before[name]) for name, value in state.net.state_dict().items())
    assert all(parameter.grad is None for parameter in state.net.parameters())
    assert torch.equal(torch.get_rng_state(), generator)


@pytest.mark.parametrize(
    ("size", "stem"), [((8, 8), "cifar"), ((64, 64), "cifar"), ((96, 96), "imagenet"), ((20, 100), "cifar")]
)
def test_the_stem_follows_the_size(size: tuple[int, int], stem: str) -> None:
    assert suited_stem(size) == stem
    if size[0] == size[1]:
        search = Searcher(images(size[0], 8), cells=3, channels=4)
        assert search.config.stem == stem
        assert Searcher(images(size[0], 8), cells=3, channels=4, stem="imagenet_stride4").config.stem[-1] == "4"
        assert Trainer("DARTS_V2", images(size[0], 8)).config.stem == stem


def test_large_images_are_judged_in_small_batches() -> None:
    sizes = [(64, (8, 8)), (64, (32, 32)), (2, (64, 64)), (2, (224, 224)), (300, (32, 32)), (2, (4096, 4096))]
    assert [judged_together(batch, size) for batch, size in sizes] == [256, 256, 64, 5, 300, 2]


def test_the_image_size_belongs_to_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image = pytest.importorskip("PIL.Image")
    for name in "ab":
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(10):
            image.new("L", (20, 20), i).save(tmp_path / "pets" / name / f"{i}.png")

    def said(*more: str) -> tuple[int, str]:
        sizes = ("--epochs", "1", "--cells", "2", "--channels", "4", "--batch", "4", "--method", "darts")
        monkeypatch.setattr(sys, "argv", ["ddarts", "search", *sizes, "--out", str(tmp_path / "run"), *more])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), capsys.readouterr().err

    code, lines = said("--data", str(tmp_path / "pets"), "--image-size", "12")
    assert code == 0
    assert "search: images of 12x12, grey, to which 20 of 20 files are scaled and cut; no test or val" in lines
    assert "16 images 12x12 grey in 2 classes" in lines
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["image_size"], config["stem"]) == (12, "cifar")
    code, lines = said("--resume")
    assert (code, "16 images 12x12 grey" in lines) == (0, True)
    code, lines = said("--resume", "--image-size", "16")
    assert (code, len(lines.splitlines())) == (2, 1)
    assert "image_size" in lines
    code, lines = said("--resume", "--stem", "imagenet")
    assert (code, len(lines.splitlines())) == (2, 1)
    assert "stem must be 'cifar' to resume" in lines
    other = str(tmp_path / "other")
    code, lines = said("--data", str(tmp_path / "pets"), "--image-size", "32", "--stem", "imagenet", "--out", other)
    assert (code, ", stem imagenet, batch 4" in lines) == (0, True)
