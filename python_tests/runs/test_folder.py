"""A run folder holds whole files, refuses what does not belong to it, and gives back what was saved or says why not."""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ddarts_ext.runs import checkpoint
from ddarts_ext.runs.files import write_whole
from ddarts_ext.runs.folder import RunFolder, Saved
from ddarts_ext.runs.lock import taken

CONFIG: dict[str, Any] = {
    "command": "search",
    "method": {"epochs": 5, "objectives": {"ablation_weight": 0.5}},
    "device": "cpu",
    "images": {"train": 10, "digest": "ab"},
    "division": {"weights": {"digest": "cd"}},
}
OPEN: dict[str, Any] = {"changeable": ("device",), "growing": ("method.epochs",)}


def changed(**paths: Any) -> dict[str, Any]:
    """CONFIG with other values at dotted paths, written with two underscores."""
    config = json.loads(json.dumps(CONFIG))
    for path, value in paths.items():
        *parents, name = path.split("__")
        place = config
        for parent in parents:
            place = place[parent]
        place[name] = value
    return dict(config)


def run_of(path: Path, epochs: int, config: dict[str, Any] = CONFIG) -> list[dict[str, Any]]:
    """A run of so many finished epochs."""
    folder = RunFolder(path)
    records: list[dict[str, Any]] = []
    with folder.session():
        folder.open(config, resume=False, **OPEN)
        folder.begin(config)
        for epoch in range(epochs):
            records.append({"epoch": epoch, "loss": 1 / (epoch + 1), "scores": [math.inf, 1.0]})
            folder.save({"epoch": epoch + 1, "tensor": torch.full((300,), float(epoch))}, records)
    return records


def resumed(path: Path, config: dict[str, Any] = CONFIG) -> tuple[Saved | None, list[str]]:
    """What a resumed run takes up, and what is said."""
    said: list[str] = []
    folder = RunFolder(path, say=said.append)
    with folder.session():
        return folder.open(config, resume=True, **OPEN), said


def refusal(path: Path, config: dict[str, Any] = CONFIG, *, resume: bool = True) -> str:
    """The one line of a refused start, which leaves everything as it was."""
    before = {file: file.read_bytes() for file in path.iterdir() if file.name != ".lock"}
    folder = RunFolder(path)
    with pytest.raises(ValueError) as raised, folder.session():  # noqa: PT011  # the callers match
        folder.open(config, resume=resume, **OPEN)
    assert {file: file.read_bytes() for file in path.iterdir() if file.name != ".lock"} == before
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_file_is_replaced_whole_and_the_umask_decides_who_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    before = os.umask(0o077)
    try:
        write_whole(path, b"old")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        os.umask(0o002)
        write_whole(path, b"new")
        assert stat.S_IMODE(path.stat().st_mode) == 0o664
    finally:
        os.umask(before)
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


def test_history_and_checkpoint_come_back(tmp_path: Path) -> None:
    records = run_of(tmp_path / "run", 3)
    saved, said = resumed(tmp_path / "run")
    assert saved is not None
    assert saved.history == records == RunFolder(tmp_path / "run").history()
    assert saved.content["epoch"] == 3
    assert torch.equal(saved.content["tensor"], torch.full((300,), 2.0))
    assert not said
    lines = (tmp_path / "run" / "history.jsonl").read_text()
    assert "Infinity" not in lines
    assert '"scores": ["inf", 1.0]' in lines


def test_nan_is_not_written(tmp_path: Path) -> None:
    run_of(tmp_path, 1)
    before = (tmp_path / "history.jsonl").read_bytes()
    with pytest.raises(ValueError, match=r"history: train\.loss\[1\] must be a number, got nan"):
        RunFolder(tmp_path).write_history([{"epoch": 0, "train": {"loss": [0.0, math.nan]}}])
    assert (tmp_path / "history.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (changed(method__objectives__ablation_weight=0.7), "ablation_weight must be 0.5 to resume"),
        (changed(method__epochs=4), "epochs must be 5 or more to resume"),
        (changed(method__epochs="9"), "epochs must be 5 or more to resume"),
        (changed(images__digest="ee", division__weights__digest="ff"), "the images of the run: digest must be 'ab'"),
        (changed(seed=1, division__weights__digest="ff"), "seed must be None to resume"),
    ],
)
def test_another_setting_is_named(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    run_of(tmp_path, 2)
    assert message in refusal(tmp_path, config)


def test_epochs_may_grow_and_the_device_may_change(tmp_path: Path) -> None:
    run_of(tmp_path, 2)
    saved, _ = resumed(tmp_path, changed(method__epochs=50, device="cuda"))
    assert saved is not None
    assert saved.content["epoch"] == 2


def test_a_run_is_not_begun_anew(tmp_path: Path) -> None:
    run_of(tmp_path, 1)
    assert "out must be a new folder, or use --resume" in refusal(tmp_path, resume=False)
    (tmp_path / "config.json").unlink()
    assert "out must be a new folder, or use --resume" in refusal(tmp_path, resume=False)


def test_one_process_writes(tmp_path: Path) -> None:
    """Neither touches what the other is writing."""
    folder = RunFolder(tmp_path / "run")
    with folder.session():
        folder.open(CONFIG, resume=False, **OPEN)
        folder.begin(CONFIG)
        (tmp_path / "run" / ".history.jsonl.abcd").write_text("being written")
        for resume in (True, False):
            assert "out must not be in use by another process" in refusal(tmp_path / "run", resume=resume)
    run_of(tmp_path / "run", 1)
    assert not (tmp_path / "run" / ".history.jsonl.abcd").exists()


def test_a_file_system_without_locks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import filelock

    def refuse(self: Any, **_: Any) -> None:
        raise NotImplementedError

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    said: list[str] = []
    taken(tmp_path / ".lock", "in use", said.append)
    assert "without locks" in said[0]


def flip(file: Path, position: int) -> None:
    content = bytearray(file.read_bytes())
    content[position % len(content)] ^= 1
    file.write_bytes(bytes(content))


def test_a_flipped_bit_never_gives_other_content(tmp_path: Path) -> None:
    """Every 37th byte: the checkpoint reads as it was written, or the one before it is taken up, which is said."""
    run_of(tmp_path, 2)
    good = (tmp_path / "checkpoint.pt").read_bytes()
    found = 0
    for position in range(0, len(good), 37):
        (tmp_path / "checkpoint.pt").write_bytes(good)
        flip(tmp_path / "checkpoint.pt", position)
        saved, said = resumed(tmp_path)
        assert saved is not None
        epoch = saved.content["epoch"]
        assert torch.equal(saved.content["tensor"], torch.full((300,), float(epoch - 1)))
        assert len(saved.history) == epoch == 2 - len(said)
        found += len(said)
    assert found > 20


def nothing(folder: Path) -> None:
    (folder / "checkpoint.pt").write_bytes(b"")


def shorter(folder: Path) -> None:
    (folder / "checkpoint.pt").write_bytes((folder / "checkpoint.pt").read_bytes()[:-200])


def lines(folder: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    file = folder / "history.jsonl"
    file.write_bytes(b"".join(change(file.read_bytes().splitlines(keepends=True))))


FAULTS: dict[str, tuple[Callable[[Path], None], int | str]] = {
    "empty checkpoint": (nothing, 2),
    "truncated checkpoint": (shorter, 2),
    "no checkpoint": (lambda f: (f / "checkpoint.pt").unlink(), 2),
    "half a line": (lambda f: lines(f, lambda x: [*x[:-1], x[-1][:9]]), 2),
    "a missing last line": (lambda f: lines(f, lambda x: x[:-1]), 2),
    "a missing first line": (lambda f: lines(f, lambda x: x[1:]), "history.jsonl:1 must be of epoch 0, got 1"),
    "epoch 99": (lambda f: lines(f, lambda x: [x[0].replace(b'"epoch": 0', b'"epoch": 99')]), "of epoch 0, got 99"),
    "a list": (lambda f: lines(f, lambda x: [b"[1]\n"]), "must be an object, got list"),
    "another figure": (lambda f: lines(f, lambda x: [x[0].replace(b"1.0,", b"1.5,"), *x[1:]]), "another history"),
    "no history": (lambda f: (f / "history.jsonl").unlink(), "is of epoch 3, and"),
    "both damaged": (lambda f: [nothing(f), (f / "checkpoint.previous.pt").write_bytes(b"PK\3\4")], "not a checkpoint"),
    "both gone": (
        lambda f: [(f / name).unlink() for name in ("checkpoint.pt", "checkpoint.previous.pt")],
        "must be there to continue after epoch 3",
    ),
    "config of another run": (
        lambda f: (f / "config.json").write_text(json.dumps(changed(seed=4))),
        "seed must be 4 to resume",
    ),
    "another command's": (
        lambda f: (f / "config.json").write_text(json.dumps(changed(command="train"))),
        "out must be the folder of a search, got that of 'train'",
    ),
    "no JSON": (lambda f: (f / "config.json").write_text("{"), "config.json is not valid JSON"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_damage_is_one_line(tmp_path: Path, fault: str) -> None:
    """Either the checkpoint before the last is taken up and that is said, or the run is refused and stays as it is."""
    run_of(tmp_path, 3)
    damage, expected = FAULTS[fault]
    damage(tmp_path)
    if isinstance(expected, str):
        assert expected in refusal(tmp_path)
        return
    saved, said = resumed(tmp_path)
    assert saved is not None
    assert saved.content["epoch"] == len(saved.history) == expected
    assert fault == "no checkpoint" or "continues from checkpoint.previous.pt, after epoch 2" in said[0]


def test_a_lost_configuration_hands_the_checkpoint_to_no_other_run(tmp_path: Path) -> None:
    run_of(tmp_path, 2)
    (tmp_path / "config.json").unlink()
    assert "of a run with another configuration" in refusal(tmp_path, changed(method__objectives__ablation_weight=0.7))
    saved, _ = resumed(tmp_path)
    assert saved is not None


def test_a_checkpoint_of_an_older_form_is_refused(tmp_path: Path) -> None:
    torch.save({"format": 1, "epoch": 3}, tmp_path / "checkpoint.pt")
    with pytest.raises(checkpoint.DamagedError, match="must have format 2, got 1"):
        checkpoint.read(tmp_path / "checkpoint.pt")


def begun_and_ended(folder: RunFolder, error: BaseException) -> None:
    folder.open(CONFIG, resume=False, **OPEN)
    folder.begin(CONFIG)
    raise error


def test_a_start_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    for existing in (False, True):
        out = tmp_path / "a" / "b"
        if existing:
            out.mkdir(parents=True)
        folder = RunFolder(out)
        with pytest.raises(RuntimeError), folder.session():
            begun_and_ended(folder, RuntimeError())
        assert (tmp_path / "a").exists() == existing
        assert not (out / "config.json").exists()
    run_of(tmp_path / "a" / "b", 1)


def test_an_interrupt_before_the_first_epoch_blocks_nothing(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt), folder.session():
        begun_and_ended(folder, KeyboardInterrupt())
    assert resumed(tmp_path / "run") == (None, [])
    run_of(tmp_path / "run", 1, changed(seed=2))


def test_out_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="out must be a folder, got the file"):
        RunFolder(tmp_path / "file").open(CONFIG, resume=False)


def refusing(code: int, real: Callable[..., Any], when: Callable[..., bool]) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        if when(*arguments):
            raise OSError(code, os.strerror(code))
        return real(*arguments, **options)

    return call


@pytest.mark.parametrize(
    ("name", "code", "when"),
    [
        ("fsync", errno.EINVAL, lambda handle: stat.S_ISDIR(os.fstat(handle).st_mode)),
        ("fsync", errno.ENOSYS, lambda handle: True),
        ("chmod", errno.EPERM, lambda *_: True),
        ("open", errno.EACCES, lambda path, *_: os.path.isdir(path)),
        ("replace", errno.EACCES, lambda source, target: os.path.exists(target)),
    ],
)
def test_poorer_file_systems_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: int, when: Callable[..., bool]
) -> None:
    monkeypatch.setattr(os, name, refusing(code, getattr(os, name), when))
    run_of(tmp_path / "run", 3)
    monkeypatch.undo()
    saved, said = resumed(tmp_path / "run")
    assert saved is not None
    assert (saved.content["epoch"], said) == (3, [])


@pytest.mark.parametrize("after", [0, 1000, 100_000])
def test_a_full_disk_is_an_error_that_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Also where torch's writer turns it into an error of its own."""
    records = run_of(tmp_path, 2)
    folder = RunFolder(tmp_path)
    with folder.session():
        folder.open(CONFIG, resume=True, **OPEN)
        written = 0

        class Full:
            def __init__(self, file: Any) -> None:
                self.file = file

            def __enter__(self) -> Full:
                return self

            def __exit__(self, *_: object) -> None:
                self.file.close()

            def __getattr__(self, attribute: str) -> Any:
                return getattr(self.file, attribute)

            def write(self, data: Any) -> int:
                nonlocal written
                written += len(data)
                if written > after:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return int(self.file.write(data))

        real = os.fdopen
        monkeypatch.setattr(os, "fdopen", lambda *arguments: Full(real(*arguments)))
        with pytest.raises(OSError, match="No space left"):
            folder.save({"epoch": 3, "tensor": torch.zeros(100_000)}, [*records, {"epoch": 2}])
        monkeypatch.undo()
    assert not list(tmp_path.glob(".*.*"))
    saved, said = resumed(tmp_path)
    assert saved is not None
    assert (saved.content["epoch"], said) == (2, [])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"command": "train"}, "out must be the folder of a search, got that of 'train'"),
        ({"command": "search"}, "config.json does not fit this search: lacks 'source'"),
    ],
)
def test_a_configuration_that_lacks_something_is_named(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    folder = RunFolder(tmp_path)
    folder.begin(config)
    with pytest.raises(ValueError, match="search: ") as raised:
        folder.arguments(lambda found: {"data": found["source"]})
    assert message in str(raised.value)
