"""What steps dispatch on a GPU's path: no step waits for the device, and what would make one wait is found."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from ddarts_ext import cli, ops
from ddarts_ext.benchmark import launches
from ddarts_ext.benchmark.launches.counter import meta_as_gpu
from ddarts_ext.benchmark.launches.model import multi_tensor
from ddarts_ext.ops import _checks

SMALL = launches.Sizes(cells=3, channels=4, batch=4, nasbench201_cells=3)


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(*shape, dtype=dtype, device="meta")


@pytest.mark.parametrize("name", launches.STEPS)
def test_no_step_waits_for_the_device(name: str) -> None:
    """No op touches a tensor on the CPU, reads a value, or gives a size that depends on data."""
    with meta_as_gpu():
        step = launches.STEPS[name](SMALL)
    found = launches.count(step)
    assert not found.faults, "\n".join(found.faults)
    assert found.total > 0
    assert found.own > 0 or name == "augmentation"


CEILINGS = {
    "augmentation": (27, 18),
    "weight step": (2707, 992),
    "architecture step": (2413, 2315),
    "architecture step, little memory": (3539, 3736),
    "architecture step, first order": (1394, 939),
    "judging": (309, 400),
    "IS-DARTS weight step": (1999, 874),
    "IS-DARTS measure": (512, 459),
    "NAS-Bench-201 weight step": (1753, 973),
    "NAS-Bench-201 measure": (857, 523),
}
"""Dispatched ops and launches of every step at the published sizes, as docs/kernels/launches.md has them."""


@pytest.mark.parametrize("name", CEILINGS)
def test_steps_launch_no_more_than_they_did(name: str) -> None:
    with meta_as_gpu():
        step = launches.STEPS[name](launches.Sizes())
    found = launches.count(step)
    calls, total = CEILINGS[name]
    assert sum(found.calls.values()) <= calls
    assert found.total <= total
    moved, planned = MOVED[name]
    assert round(found.moved.total() / 1e9, 2) <= moved
    # What is planned follows from the network alone, not from the kernels.
    assert found.plan.bytes / 1e9 == pytest.approx(planned, abs=0.006)
    assert found.plan.bytes <= found.moved.total()


@pytest.fixture
def low_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our ops as under autocast to bfloat16, which meta tensors have not; the library's stay as they are."""
    monkeypatch.setattr(_checks, "autocasts", lambda device: True)
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda device: torch.bfloat16)


@pytest.mark.parametrize(
    ("name", "total"), [("weight step", 999), ("architecture step", 2322), ("IS-DARTS weight step", 881)]
)
def test_low_precision_takes_the_same_launches_and_some_casts(low_precision: None, name: str, total: int) -> None:
    with meta_as_gpu():
        step = launches.STEPS[name](launches.Sizes())
    found = launches.count(step)
    assert found.total <= total
    assert found.launches["aten::_to_copy"] <= 8  # of images and states, not of filters
    assert found.moved.total() / 1e9 < 0.62 * MOVED[name][0]


MOVED = {
    "augmentation": (0.01, 0.00),
    "weight step": (12.51, 8.61),
    "architecture step": (47.94, 30.31),
    "architecture step, little memory": (52.16, 32.97),
    "architecture step, first order": (11.30, 8.12),
    "judging": (5.08, 3.72),
    "IS-DARTS weight step": (12.36, 8.44),
    "IS-DARTS measure": (8.19, 3.72),
    "NAS-Bench-201 weight step": (7.85, 2.66),
    "NAS-Bench-201 measure": (3.52, 1.31),
}
"""GB of every step, and of the plan that moves every stored tensor once, as docs/kernels/bytes.md has them."""


def test_every_step_has_a_ceiling() -> None:
    assert set(CEILINGS) == set(MOVED) == set(launches.STEPS)


def reads_a_value() -> None:
    meta(1).item()


def branches_on_a_value() -> None:
    if meta(3).sum() > 0:
        meta(1).add_(1)


def chooses_by_a_mask() -> None:
    x = meta(3)
    x[x > 0]


def counts_nonzeros() -> None:
    meta(3).nonzero()


def touches_the_host() -> None:
    torch.zeros(3) + 1


def copies_to_the_device() -> None:
    meta(3).copy_(torch.ones(3))


def makes_a_table_of_constants() -> None:
    meta(3) * torch.tensor([1.0, 2.0, 3.0]).to("meta")


@pytest.mark.parametrize(
    ("step", "fault"),
    [
        (reads_a_value, "_local_scalar_dense reads values"),
        (branches_on_a_value, "reads values"),
        (chooses_by_a_mask, "aten::index reads values"),
        (counts_nonzeros, "nonzero reads values"),
        (touches_the_host, "zeros makes a tensor on the CPU"),
        (copies_to_the_device, "copy_ reads a tensor on the CPU"),
        (makes_a_table_of_constants, "reads a tensor on the CPU"),
    ],
)
def test_what_makes_a_device_wait_is_found(step: Callable[[], None], fault: str) -> None:
    # What meta tensors cannot compute is counted before it fails.
    with launches.Counted() as counted, contextlib.suppress(NotImplementedError, RuntimeError):
        step()
    assert any(fault in found for found in counted.faults), counted.faults


def test_launches_are_counted_by_op() -> None:
    x, filters = meta(2, 4, 8, 8).requires_grad_(), [meta(4, 1, 3, 3), meta(4, 1, 5, 5)]

    def step() -> None:
        outputs = ops.relu_depthwise_conv2d(x, filters, dilations=[1, 1]).outputs
        torch.autograd.grad(torch.cat([image.flatten() for image in outputs]).sum(), x)

    found = launches.count(step)
    for name in ("ddarts_ext::relu_depthwise_conv2d", "ddarts_ext::relu_depthwise_conv2d_backward"):
        assert (found.calls[name], found.launches[name]) == (1, 1)
    assert found.own == 2
    assert (found.calls["aten::cat"], found.launches["aten::cat"]) == (1, 1)
    assert found.calls["aten::view"] > 0
    assert found.launches["aten::view"] == 0
    assert found.total == sum(found.launches.values())


def test_a_fault_names_the_line_of_the_package() -> None:
    with launches.Counted() as counted:
        ops.spawn_group(None, torch.ones(2, 4, 8, 8), stride=1)
        torch.ones(1)
    places = {fault.rsplit(": ", 1)[1] for fault in counted.faults}
    assert any(place.startswith("ops/spawn_group.py:") for place in places)
    assert "autograd or torch" in places


@pytest.mark.parametrize(
    ("sizes", "depth", "expected"),
    [
        ([], 1, 0),
        ([0, 0], 1, 0),
        ([5] * 110, 1, 1),
        ([5] * 111, 1, 2),
        ([5] * 49, 3, 2),
        ([65536 * 320], 1, 1),
        ([65536 * 320 + 1], 1, 2),
    ],
)
def test_lists_of_tensors_take_the_launches_of_torch(sizes: list[int], depth: int, expected: int) -> None:
    assert multi_tensor([meta(size) for size in sizes], depth) == expected


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("augmentation", "judging", "NAS-Bench-201 weight step")
    monkeypatch.setattr(launches.steps, "STEPS", {name: launches.STEPS[name] for name in names})
    monkeypatch.setattr(launches, "Sizes", lambda: SMALL)


def run(*arguments: str) -> Any:
    return CliRunner(env={"COLUMNS": "80"}).invoke(cli.app, ["bench", *arguments])


@pytest.mark.usefixtures("small")
def test_the_command_prints_the_table_and_writes_it(tmp_path: Path) -> None:
    found = run("launches", "--output", str(tmp_path / "launches.json"))
    assert found.exit_code == 0, found.output
    assert max(map(len, found.output.splitlines())) <= 80
    written = json.loads((tmp_path / "launches.json").read_text())
    assert written["sizes"] == {"cells": 3, "channels": 4, "batch": 4, "nasbench201_cells": 3}
    assert [row["step"] for row in written["steps"]] == ["augmentation", "judging", "NAS-Bench-201 weight step"]
    for row in written["steps"]:
        assert f"{row['calls']:,}" in found.output
        assert f"{row['launches']:,}" in found.output
        assert min(row["launches"], row["calls"]) > 0
        assert row["faults"] == {}
        assert f"{row['moved'] / 1e9:.2f}" in found.output
        assert row["moved"] >= row["plan"]
        assert row["model_ms"] == round(row["moved"] / (0.75 * 3.35e12) * 1000, 2)


@pytest.mark.usefixtures("small")
def test_the_command_names_faults_and_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launches.steps, "STEPS", {"planted": lambda sizes: reads_a_value})
    found = run("launches")
    assert found.exit_code == 1
    assert "planted: aten::_local_scalar_dense reads values" in found.output


@pytest.mark.parametrize("arguments", [("launches", "mixed_sum"), ("launches", "--compiled", "all")])
def test_launches_stand_alone(arguments: tuple[str, ...]) -> None:
    found = run(*arguments)
    assert isinstance(found.exception, ValueError)
    assert "bench: launches must stand alone or with --output" in str(found.exception)
