"""What a rank does alone: its part of a batch, its random numbers, what it refuses."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed.launch import WORKER, Started
from distributed.launch import cli as command
from runs.small import GENOTYPE, SEARCH, TRAIN, noise
from torch import Tensor

from ddarts_ext import cli
from ddarts_ext.data import Augmentation
from ddarts_ext.data.augment import augment
from ddarts_ext.data.batches import permuted, steps_in
from ddarts_ext.data.transform_colours import lighting_shift
from ddarts_ext.data.transform_crops import crop_boxes, erased
from ddarts_ext.nn.discrete import Drop, drop_path
from ddarts_ext.nn.forward_pass import SkipDropout
from ddarts_ext.runs import joining, ranks, share
from ddarts_ext.runs.device import choose_device
from ddarts_ext.runs.ranks import ALONE, Ranks
from ddarts_ext.search import Searcher
from ddarts_ext.search.captured import why_not
from ddarts_ext.training.trainer import Trainer


@pytest.fixture
def second_of_two(monkeypatch: pytest.MonkeyPatch) -> Ranks:
    found = Ranks(1, 2, 1, 2)
    monkeypatch.setattr(ranks, "_current", found)
    return found


@pytest.mark.parametrize(("count", "batch"), [(24, 6), (25, 6), (28, 6), (30, 6), (31, 6), (7, 12)])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_split_batches_without_overlap(count: int, batch: int, world: int) -> None:
    whole = permuted(torch.arange(count), batch, torch.Generator().manual_seed(0))
    parts = [Ranks(rank, world).rows(whole) for rank in range(world)]
    assert sum(map(len, parts[0])) == steps_in(count, batch, world)
    for place, rows in enumerate(zip(*parts, strict=True)):
        joined = torch.cat(rows, 1)
        assert torch.equal(joined, whole[place][:, : joined.shape[1]])
        assert whole[place].shape[1] - joined.shape[1] < world
        assert len({row.shape for row in rows}) == 1


@pytest.mark.parametrize("world", [2, 3])
def test_judged_images_are_split_without_rest(world: int) -> None:
    row = torch.arange(7)[None]
    assert torch.equal(torch.cat([Ranks(rank, world).judged(row) for rank in range(world)], 1), row)


def _augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    return augment(images, Augmentation(2, True, 3), (0.5,) * 3, (0.2,) * 3, generator=generator)


DRAWS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "augment": _augmented,
    "crops": lambda x, g: crop_boxes(len(x), (8, 8), 0.1, g),
    "erasing": lambda x, g: erased(x.double(), 0.7, g),
    "lighting": lambda x, g: lighting_shift(len(x), 0.3, g),
    "skips": lambda x, g: SkipDropout(torch.tensor(0.4), g).mask(x.double()),
    "drop_path": lambda x, g: drop_path(x.double(), Drop(0.4, g)),
}


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("world", [2, 3])
def test_random_numbers_are_those_of_the_whole_batch(name: str, world: int) -> None:
    images = torch.randint(1, 256, (12, 3, 8, 8), dtype=torch.uint8)
    one = torch.Generator().manual_seed(3)
    whole, found = DRAWS[name](images, one), []
    for rank, part in enumerate(images.chunk(world)):
        generator = torch.Generator().manual_seed(3)
        with share.shared(rank, world):
            found.append(DRAWS[name](part, generator))
        assert torch.equal(generator.get_state(), one.get_state())
    torch.testing.assert_close(torch.cat(found), whole)  # exact, but for the products of matrices


def test_jitter_is_that_of_the_whole_batch() -> None:
    pytest.importorskip("kornia")
    from ddarts_ext.data.transform_colours import jittered

    x = torch.rand(12, 3, 8, 8)
    whole = jittered(x, (0.4, 0.4, 0.4, 0.1), torch.Generator().manual_seed(1))
    found = []
    for rank, part in enumerate(x.chunk(2)):
        with share.shared(rank, 2):
            found.append(jittered(part, (0.4, 0.4, 0.4, 0.1), torch.Generator().manual_seed(1)))
    torch.testing.assert_close(torch.cat(found), whole)


@pytest.mark.parametrize("kind", ["search", "train"])
@pytest.mark.parametrize(
    ("batch", "said"),
    [(5, "batch must be divisible by the 2 ranks, got 5"), (2, "batch must be of 2 or more images for each of the 2")],
)
def test_a_batch_that_ranks_cannot_share_is_refused(second_of_two: Ranks, kind: str, batch: int, said: str) -> None:
    start: Any = partial(Searcher, noise(), "ddarts", **{**SEARCH, "batch": batch})
    if kind == "train":
        start = partial(Trainer, GENOTYPE, noise(), **{**TRAIN, "batch": batch})
    with pytest.raises(ValueError, match=f"^{kind}: {said}"):
        start()


def test_parts_of_a_batch_are_parts_of_that_of_a_rank(second_of_two: Ranks) -> None:
    with pytest.raises(ValueError, match="accumulate must be at most 1 for the 2 images of a rank, got 2"):
        Trainer(GENOTYPE, noise(), **{**TRAIN, "accumulate": 2})


@pytest.mark.parametrize("device", ["cuda:1", "meta"])
def test_a_rank_has_no_gpu_by_number(second_of_two: Ranks, device: str) -> None:
    with pytest.raises(ValueError, match=f"search: device must be auto, cpu or cuda with several ranks.*'{device}'"):
        choose_device(device, "search")


def test_ranks_take_a_gpu_each(second_of_two: Ranks, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device(None, "search") == torch.device("cuda", 1)
    assert choose_device("cpu", "search") == torch.device("cpu")
    assert taken == [1]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match=r"train: device must be cpu, or the ranks.*got 1 GPUs for 2 ranks"):
        choose_device("auto", "train")


def test_architectures_are_not_evaluated_by_ranks(second_of_two: Ranks) -> None:
    with pytest.raises(ValueError, match="search: method must be one of a supernet with 2 ranks, got evolution"):
        Searcher(noise(), "evolution", **{name: SEARCH[name] for name in ("cells", "channels", "batch", "device")})


def test_text_is_for_one_process(second_of_two: Ranks, tmp_path: Path) -> None:
    for kind in (Searcher, Trainer):
        with pytest.raises(ValueError, match="data must be images with 2 ranks, got text: 'text:there'"):
            kind("DARTS_V2_RNN", "text:there") if kind is Trainer else kind("text:there")


def test_steps_are_not_captured(second_of_two: Ranks, monkeypatch: pytest.MonkeyPatch) -> None:
    searcher = Searcher(noise(), "darts", **{**SEARCH, "order": 1})
    found = why_not(searcher.config, searcher.dataset, torch.device("cuda"), ())
    assert found == "several ranks average between the passes"
    with pytest.raises(ValueError, match="search: graphs must be auto or off"):
        Searcher(noise(), "darts", **{**SEARCH, "order": 1, "graphs": "on"})


def test_the_second_rank_is_silent(second_of_two: Ranks, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ddarts_ext.runs.progress import Lines

    searcher = Searcher(noise(), "darts", out=tmp_path / "run", progress=Lines(), loggers=[], **SEARCH)
    searcher.progress.say("not said")
    assert searcher.keeping.folder is None
    assert capsys.readouterr().err == ""


def test_other_commands_are_for_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=r"^export: ranks must be 1, as only search and train take several, got 2"):
        cli._ranks(["export", "run"])
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert joining.started() == ALONE
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(ValueError, match="ranks: RANK, WORLD_SIZE and LOCAL_RANK must be whole numbers"):
        joining.started()


def test_what_must_be_the_same_is_compared(tmp_path: Path) -> None:
    """One line on all ranks; it names the rank that has something else."""
    found = Started(3, [WORKER, tmp_path, "other_images", "other_settings", "other_alphas", "failing"], tmp_path)
    for code, _, said in found.wait():
        assert code == 0, said
    for name, line in {
        "other_images": "search: data must be the same images on all ranks: digest must be '.*', got '.*' on rank 2",
        "other_settings": "search: seed must be 0 on all ranks, got 5 on rank 1",
        "other_alphas": "search: alphas must be those of rank 0 on all ranks, got others on rank 1 in epoch 1",
        "failing": "search: out must be a new folder, or use --resume, got a run in",
    }.items():
        lines = {torch.load(tmp_path / f"{name}.3.{rank}.pt", weights_only=True)["error"] for rank in range(3)}
        assert len(lines) == 1
        assert re.match(line, lines.pop())


def test_a_refusal_is_said_once(tmp_path: Path) -> None:
    wanted = command("search", "--data", "digits", "--batch", "33", "--epochs", "1", "--device", "cpu")
    ended = Started(2, wanted, tmp_path).wait()
    assert [code for code, _, _ in ended] == [2, 2]
    lines = [line for _, _, said in ended for line in said.splitlines() if line.startswith("ddarts:")]
    assert lines == ["ddarts: search: batch must be divisible by the 2 ranks, got 33"]
