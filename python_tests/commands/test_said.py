"""What is said to those who take one thing for another."""

from __future__ import annotations

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from runs.small import noise, search, train
from torch import nn
from training.small import GENOTYPE
from typer.testing import CliRunner

import ddarts_ext
from ddarts_ext import cli, spaces
from ddarts_ext.nn import register_primitive
from ddarts_ext.runs.files import write_whole
from ddarts_ext.search import Searcher
from ddarts_ext.spaces import Space
from ddarts_ext.training import Trainer


def said(*arguments: Any) -> str:
    done = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    return done.output if done.exit_code == 0 else str(done.exception)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search and a training."""
    folder = tmp_path_factory.mktemp("runs")
    search(folder / "found", epochs=1).search()
    train(folder / "net", epochs=1).train()
    return folder


def test_a_training_is_no_name_of_an_untrained_network(runs: Path) -> None:
    with pytest.raises(ValueError, match=r"create_model: name must be no training, whose network load_net"):
        ddarts_ext.create_model(runs / "net")
    assert ddarts_ext.create_model(runs / "net" / "genotype.json", channels=4).genotype == GENOTYPE  # type: ignore[union-attr]
    assert ddarts_ext.create_model(str(runs / "found"), channels=4) is not None


def test_describe_counts_a_run_by_its_own_sizes(runs: Path) -> None:
    assert "with 4 channels, 2 classes, images 1x4x4, stem cifar:\n" in said("describe", runs / "net")
    assert "with 36 channels, 2 classes, images 1x4x4, stem cifar:\n" in said("describe", runs / "found")
    assert "with 8 channels, 5 classes, images 3x9x9" in said(
        "describe", runs / "net", "--channels", 8, "--classes", 5, "--size", 9, "--in-channels", 3
    )
    figures = json.loads(said("describe", runs / "net", "--json"))
    network = ddarts_ext.load_network(runs / "net")
    shown = sum(p.numel() for name, p in network.network.named_parameters() if "auxiliary" not in name)
    assert (figures["parameters"], figures["classes"], figures["image"]) == (shown, 2, [1, 4, 4])


def test_another_method_is_named(runs: Path) -> None:
    for method in ("darts", "isdarts"):
        with pytest.raises(ValueError, match=f"search: method must be ddarts to resume the run in .*, got {method}"):
            Searcher(noise(), method, out=runs / "found", resume=True)
    assert "method must be ddarts to resume" in said(
        "search", "--resume", "--out", runs / "found", "--data", "digits", "--method", "isdarts"
    )


def test_files_of_a_run_are_no_genotypes(runs: Path) -> None:
    for name in ("config.json", "network.json"):
        text = said("train", runs / "net" / name, "--data", "digits")
        assert f"{name} describes a run and is no genotype: give the folder {runs / 'net'}" in text


def test_a_folder_that_cannot_be_made() -> None:
    for command, more in (("search", []), ("train", ["DARTS_V2"])):
        text = said(command, *more, "--data", "digits", "--out", "/proc/nothing", "--epochs", 1)
        assert text.startswith(f"{command}: out must be a folder that can be made, got /proc/nothing: ")


@pytest.mark.parametrize("place", ["", "file/under"], ids=["folder", "under-file"])
@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("bench pool3x3 --output", "bench: output"),
        ("bench launches --output", "bench: output"),
        ("bench --module x.py:make --output", "bench: output"),
        ("measure-ops --data digits --out", "measure-ops: out"),
        ("score-ops --data digits --out", "score-ops: out"),
        ("report nowhere --out", "report: out"),
    ],
)
def test_a_file_that_cannot_be_written_is_named_before_anything_is_done(
    tmp_path: Path, command: str, option: str, place: str
) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / place
    text = said(*command.split(), path)
    what = "a file, got the folder" if path.is_dir() else "in a folder that can be written to, got"
    assert text == f"{option} must be {what} {path}"


@pytest.mark.parametrize("there", [True, False], ids=["there", "dangling"])
def test_a_link_stays_one(tmp_path: Path, there: bool) -> None:
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "file", tmp_path / "link"
    if there:
        target.write_bytes(b"old")
    link.symlink_to(target)
    write_whole(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert [path.name for path in target.parent.iterdir()] == ["file"]


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor(1) as reader:
        found = reader.submit((tmp_path / "pipe").read_bytes)
        write_whole(tmp_path / "pipe", b"content")
        assert found.result(timeout=60) == b"content"
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_an_error_while_writing_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as error:
        write_whole(tmp_path / "missing" / "file.json", b"")
    assert error.value.filename == str(tmp_path / "missing" / "file.json")


@pytest.mark.parametrize("option", ["seconds=nan", "seconds=0", "seconds=inf", "limit=nan", "limit=-1", "limit=inf"])
def test_times_of_a_benchmark(option: str) -> None:
    name, value = option.split("=")
    assert said("bench", "pool3x3", f"--{name}", value).startswith(f"bench: {name} must be ")


def test_threads_that_nobody_has(tmp_path: Path) -> None:
    for command in (["bench", "pool3x3"], ["measure-ops", "--data", "digits", "--out", tmp_path / "ops.json"]):
        for threads in (0, 100_000):
            expected = f"{command[0]}: threads must be an integer from 1 to 4096, got {threads}"
            assert said(*command, "--threads", threads) == expected


@pytest.mark.parametrize("value", ["nan", "inf", "-3"])
def test_what_missing_cells_are_padded_with(value: str) -> None:
    text = said("distance", "--pad-with", value, "ResNet18", "ResNet50")
    assert text == f"distance: pad_with must be a distance, 0 or more and finite, got {float(value):g}"


def test_a_report_takes_the_place_of_no_file_of_a_run(runs: Path) -> None:
    config = runs / "found" / "config.json"
    before = config.read_bytes()
    assert said("report", runs / "found", "--out", config).startswith("report: out must be an HTML file")
    assert config.read_bytes() == before


def test_a_file_that_is_no_run_is_named(runs: Path) -> None:
    file = runs / "found" / "genotype.json"
    assert said("report", file).startswith(
        f"report: {file} must be a file of op scores where it is no run, but scores: "
    )


def test_parts_of_a_batch() -> None:
    with pytest.raises(ValueError, match="at most 32 for parts of 2 images or more of batch 64, got 1000"):
        Trainer(GENOTYPE, noise(), accumulate=1000, batch=64)
    assert Trainer(GENOTYPE, noise(), accumulate=32, batch=64).config.accumulate == 32
    assert Trainer(GENOTYPE, noise(), accumulate=1, batch=1).config.accumulate == 1


def test_warm_up_of_a_recipe() -> None:
    with pytest.raises(ValueError, match="below the 1 epochs, got 5; --set warmup=0 or more --epochs"):
        Trainer(GENOTYPE, noise(), recipe="isdarts-cifar10", epochs=1)


def test_ops_that_nobody_knows() -> None:
    with pytest.raises(ValueError, match="must be known, or made so by register_primitive before, got 'sepconv'"):
        spaces.register(Space("odd", ("skip_connect", "sepconv")))
    assert "odd" not in spaces.names()


def test_what_builds_an_op_takes_two_numbers() -> None:
    with pytest.raises(TypeError, match=r"build of half must take channels and stride, got one of \(channels\)"):
        register_primitive("half", lambda channels: nn.Identity())  # type: ignore[arg-type, misc]


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ({"weigth_lr": 1}, "did you mean 'weight_lr'"),
        ({"epoch": 1}, "did you mean 'epochs'"),
        ({"foo": 1}, "got 'foo'$"),
    ],
)
def test_settings_that_nobody_knows(given: dict[str, Any], near: str) -> None:
    with pytest.raises(
        TypeError, match=f"search: setting must be one of those that ddarts search --list shows, .*{near}"
    ) as e:
        Searcher(noise(), "ddarts", **given)
    assert len(str(e.value)) < 200
    if "weigth_lr" not in given:
        with pytest.raises(TypeError, match=f"^train: setting must be one of .* train .*{near}"):
            Trainer(GENOTYPE, noise(), **given)


def test_lists_are_whole() -> None:
    from ddarts_ext.search.settings import OPTIONS as SEARCH
    from ddarts_ext.training.config import OPTIONS as TRAIN
    from ddarts_ext.training.recipes import NAMES

    shown = said("search", "--list", "--method", "isdarts")
    assert "with the values of isdarts:" in shown
    assert "\n  weight_lr=" in shown
    missing = [name for name in SEARCH if f"\n  {name}=" not in shown and name != "augmentation"]
    assert not missing
    shown = said("train", "--list")
    assert all(f"\n  {name}: " in shown for name in NAMES)
    assert not [name for name in TRAIN if f"\n  {name}=" not in shown]
