"""Tasks on a Ray cluster of two machines, which are one here: the same results, files and failures as of processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import ray_tasks
from typer.testing import CliRunner

import ddarts_ext
from ddarts_ext import cli
from ddarts_ext.comparison import compare
from ddarts_ext.distance.score_ops import Protocol, score_ops
from ddarts_ext.runs.placing import placed
from ddarts_ext.runs.ray_joining import address_of
from ddarts_ext.runs.ray_portions import Machine, Portion, portion_of
from ddarts_ext.runs.ray_workers import RayPlace

SEARCH: dict[str, Any] = {"cells": 3, "channels": 2, "steps": 1, "batch": 8, "epochs": 1}
TRAIN: dict[str, Any] = {"channels": 2, "epochs": 1, "batch": 8}
PLAN: dict[str, Any] = {"seeds": 2, "random": 1, "search": SEARCH, "train": TRAIN, "device": "cpu"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two machines with one CPU each."""
    ray = pytest.importorskip("ray", reason="ray is not installed")
    from ray.cluster_utils import Cluster

    # Workers import what is tested, and from these tests.
    paths = os.pathsep.join((str(Path(ddarts_ext.__file__).parents[1]), str(Path(__file__).parents[1])))
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = paths
    two = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        two.add_node(num_cpus=1)
        ray.init(address=two.address, log_to_driver=False, logging_level="critical")
        yield ray
    finally:
        ray.shutdown()
        two.shutdown()
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    random = np.random.RandomState(0)
    arrays = {f"x_{part}": random.randint(0, 256, (40, 6, 6), dtype=np.uint8) for part in ("train", "test")}
    path = tmp_path_factory.mktemp("images") / "images.npz"
    np.savez(path, **arrays, y_train=np.arange(40) % 2, y_test=np.arange(40) % 2)
    return path


def outcomes(folder: Path) -> dict[str, Any]:
    """All that was found, without what was measured by a clock, and the names of all files."""
    found: dict[str, Any] = {"files": sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))}
    for path in sorted(folder.rglob("*ed.json")):
        record = json.loads(path.read_text())
        found[path.parent.name] = {key: value for key, value in record.items() if key not in ("seconds", "memory_mib")}
    return found


def test_every_machine_works(cluster: Any, tmp_path: Path) -> None:
    pair = [(str(tmp_path), "a", "b"), (str(tmp_path), "b", "a")]
    with placed("ray", "compare", device="auto", jobs=None) as place:
        met = dict(place.each(pair, ray_tasks.meets, ray_tasks.begin))
        found = dict(place.each(range(6), ray_tasks.place_of, ray_tasks.begin))
    assert len({result[2] for result in met.values()}) == 2
    assert {task: result[0] for task, result in found.items()} == {task: task for task in range(6)}
    assert {result[1] for result in found.values()} == {"cpu"}
    assert {result[3] for result in found.values()} == {1}
    assert cluster.is_initialized()  # it was not begun here


def test_a_comparison_is_the_same(cluster: Any, images: Path, tmp_path: Path) -> None:
    said: list[str] = []
    far = compare(images, ["ddarts"], out=tmp_path / "ray", backend="ray", say=said.append, **PLAN)
    near = compare(images, ["ddarts"], out=tmp_path / "local", jobs=2, **PLAN)
    assert said[0] == "compare: on Ray, 2 machines with 2 CPUs and 0 GPUs, 2 tasks at once"
    assert [(line.label, line.mean, line.best) for line in far.lines] == [
        (line.label, line.mean, line.best) for line in near.lines
    ]
    assert outcomes(tmp_path / "ray") == outcomes(tmp_path / "local")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "ray").rglob("*ed.json")}
    assert len(times) == 6
    with pytest.raises(ValueError, match="out must be a new folder"):
        compare(images, ["ddarts"], out=tmp_path / "ray", backend="ray", **PLAN)
    again = compare(images, ["ddarts"], out=tmp_path / "ray", backend="ray", resume=True, **PLAN)
    assert again == far
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "ray").rglob("*ed.json")} == times


def test_scores_are_the_same(cluster: Any, images: Path, tmp_path: Path) -> None:
    ops = ("skip_connect", "max_pool_3x3")
    near = score_ops(Protocol(str(images), ops, 2, 1, 1, 8, cells=1), tmp_path / "near.json", device="cpu")
    sizes = ["--channels", "2", "--epochs", "1", "--runs", "1", "--batch", "8", "--cells", "1"]
    arguments = ["score-ops", "--data", str(images), "--ops", ",".join(ops), *sizes, "--out", str(tmp_path / "s.json")]
    result = CliRunner().invoke(cli.app, [*arguments, "--backend", "ray", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["scores"] == near
    assert sorted(os.listdir(tmp_path)) == sorted(
        f"{dot}{name}.json{end}"
        for name in ("near", "s")
        for dot, end in (("", ""), ("", ".jsonl"), (".", ".jsonl.lock"))
    )


def test_what_a_task_raises_is_raised(cluster: Any) -> None:
    with placed("ray", "compare", device="cpu", jobs=2) as place:
        with pytest.raises(ValueError, match=r"^search: task 3 is wrong$"):
            list(place.each([3], ray_tasks.wrong, ray_tasks.begin))
        with pytest.raises(ChildProcessError, match=r"^compare: a worker process has ended .* try fewer --jobs$"):
            list(place.each([3, 4], ray_tasks.ends, ray_tasks.begin))
        assert dict(place.each([5], ray_tasks.place_of, ray_tasks.begin))[5][0] == 5


def test_images_that_a_worker_does_not_see_are_named(cluster: Any, images: Path, tmp_path: Path) -> None:
    protocol = Protocol(str(tmp_path / "images.npz"), ("skip_connect",), 2, 1, 1, 8, cells=1)
    with pytest.raises(FileNotFoundError, match=r"^data: .*images\.npz' does not exist$"):
        score_ops(protocol, tmp_path / "s.json", backend="ray", device="cpu")


def test_a_folder_that_is_not_shared_is_named(
    cluster: Any, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = r"^compare: out must be a folder on a file system that all machines share, got .*, which \S+ does not see$"
    with placed("ray", "compare", device="cpu", jobs=1) as place:
        assert isinstance(place, RayPlace)
        (tmp_path / "early").mkdir()
        place.check(tmp_path / "early")
        assert dict(place.each([5], ray_tasks.place_of, ray_tasks.begin))[5][0] == 5
        (tmp_path / "early").rmdir()  # as a machine sees it that came later
        with pytest.raises(FileNotFoundError, match=said):
            list(place.each([5], ray_tasks.place_of, ray_tasks.begin))
    everywhere = RayPlace._everywhere

    def one_does_not_see(self: RayPlace, function: Any, *arguments: Any) -> Iterator[tuple[str, Any]]:
        seen = everywhere(self, function, *arguments)
        return ((name, value and bool(place)) for place, (name, value) in enumerate(seen)) if arguments else seen

    monkeypatch.setattr(RayPlace, "_everywhere", one_does_not_see)
    with pytest.raises(FileNotFoundError, match=said):
        compare(images, ["ddarts"], out=tmp_path / "deep" / "out", backend="ray", **PLAN)
    assert os.listdir(tmp_path) == []  # the folder that was made for it is gone


def test_other_versions_are_refused(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ddarts_ext, "__version__", "9.0")
    with (
        pytest.raises(ValueError, match=r"^compare: ddarts_ext must be 9\.0 on all machines of the Ray cluster, got "),
        placed("ray", "compare", device="cpu", jobs=1),
    ):
        pass


def test_devices_of_a_cluster(cluster: Any) -> None:
    for device, message in (
        ("cuda", "device must be cpu, as the Ray cluster has no GPU, got 'cuda'"),
        ("cuda:0", "device must be auto, cpu or cuda with backend ray"),
    ):
        with pytest.raises(ValueError, match=message), placed("ray", "compare", device=device, jobs=1):
            pass


def test_a_killed_comparison_goes_on_without_ray(images: Path, tmp_path: Path) -> None:
    """Begun on a cluster of its own, which ends with it, killed after a search, and ended by this process."""
    pytest.importorskip("ray", reason="ray is not installed")
    out = tmp_path / "out"
    script = (
        "import json, sys; from ddarts_ext.comparison import compare; "
        "compare(sys.argv[1], ['ddarts'], out=sys.argv[2], backend='ray', jobs=1, **json.loads(sys.argv[3]))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment["RAY_TMPDIR"] = tempfile.mkdtemp(dir="/tmp")  # of no other cluster; paths of its sockets are short
    command = [sys.executable, "-c", script, str(images), str(out), json.dumps(PLAN)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and not list(out.rglob("searched.json")):
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(environment["RAY_TMPDIR"], ignore_errors=True)
    assert list(out.rglob("searched.json"))
    assert not (out / "comparison.json").exists()
    found = None
    deadline = time.monotonic() + 180
    while found is None and time.monotonic() < deadline:
        # The worker that was at a training ends with its cluster, and so does its lock.
        with suppress(ValueError):
            found = compare(images, ["ddarts"], out=out, resume=True, **PLAN)
    assert found is not None
    whole = compare(images, ["ddarts"], out=tmp_path / "whole", **PLAN)
    assert [line.mean for line in found.lines] == [line.mean for line in whole.lines]
    assert outcomes(out) == outcomes(tmp_path / "whole")


def test_which_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that answers; one that is gone is an error where it was asked for, and else forgotten."""
    (tmp_path / "ray").mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert address_of("compare") is None
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = f"127.0.0.1:{server.getsockname()[1]}"
        (tmp_path / "ray" / "ray_current_cluster").write_text(place)
        assert address_of("compare") == "auto"
    assert address_of("compare") is None
    monkeypatch.setenv("RAY_ADDRESS", place)
    with pytest.raises(ConnectionError, match=rf"^compare: no Ray cluster answers at RAY_ADDRESS={place}: "):
        address_of("compare")
    monkeypatch.setenv("RAY_ADDRESS", "ray://one:10001")
    assert address_of("compare") == "ray://one:10001"


def test_without_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    arguments = ["compare", "--data", "digits", "--out", str(tmp_path / "out")]
    with pytest.raises(
        ValueError, match=r"^compare: backend ray needs the package ray \(pip install 'ddarts_ext\[ray\]'"
    ):
        CliRunner().invoke(cli.app, [*arguments, "--backend", "ray"], catch_exceptions=False)
    with pytest.raises(ValueError, match=r"^compare: backend must be one of local, ray, got 'slurm'$"):
        CliRunner().invoke(cli.app, [*arguments, "--backend", "slurm"], catch_exceptions=False)
    assert os.listdir(tmp_path) == []


ONE, TWO = [Machine("a", 16, 2)], [Machine("a", 8, 4), Machine("b", 12, 2)]


@pytest.mark.parametrize(
    ("machines", "device", "jobs", "portion"),
    [
        (ONE, "cpu", 1, Portion(16, 0, 1)),
        (ONE, "cpu", 3, Portion(5, 0, 1)),
        (TWO, "cpu", 2, Portion(8, 0, 1)),
        (TWO, "cpu", 3, Portion(6, 0, 1)),  # one on a, two on b
        (TWO, "cpu", 20, Portion(1, 0, 1)),
        (TWO, "cpu", 60, Portion(0.3333, 0, 1)),
        (ONE, "cuda", 1, Portion(8, 1, 1)),
        (ONE, "cuda", 2, Portion(8, 1, 1)),
        (ONE, "cuda", 5, Portion(2, 0.3333, 3)),  # as five processes on two GPUs: three on one of them
        (TWO, "cuda", 6, Portion(2, 1, 1)),
        (TWO, "cuda", 24, Portion(0.5, 0.25, 4)),
        ([*TWO, Machine("c", 64, 0)], "cuda", 6, Portion(2, 1, 1)),  # a machine without GPUs has no part
        ([Machine("a", 0, 0)], "cpu", 4, Portion(0, 0, 1)),
    ],
)
def test_portions(machines: list[Machine], device: str, jobs: int, portion: Portion) -> None:
    assert portion_of(machines, device, jobs) == portion


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("jobs", [*range(1, 40), 97])
def test_all_find_room(device: str, jobs: int) -> None:
    portion = portion_of(TWO, device, jobs)
    places = 0
    for machine in TWO:
        by_cpu = int(machine.cpus / portion.cpus + 1e-9)
        places += by_cpu if device == "cpu" else min(by_cpu, int(1 / portion.gpus + 1e-9) * machine.gpus)
    assert places >= jobs
