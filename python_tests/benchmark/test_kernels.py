"""Times of kernels: what the profiler saw, and on a GPU graphs of whole calls."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import DeviceType

from ddarts_ext.benchmark import Case, kernels, measure, measurement

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def event(name: str, begin: float, end: float, device: DeviceType = DeviceType.CUDA, note: bool = False) -> object:
    """In microseconds, as torch.profiler has it."""
    time_range = SimpleNamespace(start=begin, end=end)
    return SimpleNamespace(name=name, time_range=time_range, device_type=device, is_user_annotation=note)


def test_the_device_is_busy_where_any_kernel_runs() -> None:
    found = kernels.on_device(
        [
            event("a", 0, 1000),
            event("b", 500, 1500),
            event("a", 600, 700),
            event("cudaLaunchKernel", 0, 9000, DeviceType.CPU),
            event("step", 0, 9000, note=True),
            event("c", 3000, 3500),
        ]
    )
    assert found.launches == 4
    assert found.busy_ms == pytest.approx(2.0)
    assert found.by_name["a"] == (2, pytest.approx(1.1))
    assert found.table(1).splitlines()[1].split() == ["42.3%", "1.100", "2", "a"]


def test_nothing_on_the_device_is_a_profile_too() -> None:
    found = kernels.on_device([])
    assert (found.launches, found.busy_ms) == (0, 0.0)
    assert len(found.table().splitlines()) == 1


@pytest.mark.parametrize("allowed", [True, False])
def test_tf32_is_said_in_both_directions_and_set_back(allowed: bool) -> None:
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32

    def fail() -> None:
        with kernels.tf32(allowed):
            assert torch.backends.cudnn.allow_tf32 is torch.backends.cuda.matmul.allow_tf32 is allowed
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == before


@needs_gpu
def test_a_call_is_timed_as_a_graph_with_its_launches() -> None:
    case = Case(
        "op",
        "case",
        lambda: [torch.arange(1024.0).requires_grad_()],
        lambda x: x.sin().cos(),
        lambda x: x.sin().cos(),
        8192,
        backward=True,
    )
    for row in measure(case, "cuda", seconds=0.1):
        assert row.timer == "graph"
        assert row.launches is not None
        assert 2 <= row.launches <= 12
        assert row.median_ms < 0.1


@needs_gpu
def test_what_cannot_be_captured_is_left_to_the_profiler() -> None:
    assert kernels.captured([lambda: torch.ones(3, device="cuda").sum().item()]) is None
    assert kernels.sound()


class Graph:
    """Stands for a CUDA graph: a replay runs what was captured."""

    def __init__(self, runs: list[Callable[[], object]]) -> None:
        self.runs = runs

    def replay(self) -> None:
        for run in self.runs:
            run()


@pytest.mark.parametrize("captures", [True, False])
def test_on_a_gpu_buffers_rotate_and_times_are_of_one_call(monkeypatch: pytest.MonkeyPatch, captures: bool) -> None:
    """The path of a GPU, with the device's own parts replaced: ``cpu:0`` is a device that is not called ``cpu``."""
    made, graphs = [], []

    def capture(runs: list[Callable[[], object]]) -> Graph | None:
        graphs.append(Graph(runs))
        return graphs[-1] if captures else None

    def inputs() -> list[torch.Tensor]:
        made.append(torch.arange(1.0, 1 + (8 << 10)).requires_grad_())
        return [made[-1]]

    def interleave(steps: dict[str, Callable[[], None]], *_: object) -> dict[str, list[float]]:
        for step in steps.values():
            step()
        return {name: [90.0, 90.0] for name in steps}

    def profiled(step: Callable[[], object]) -> kernels.Profile:
        step()
        return kernels.Profile(3, 2.0, {})

    monkeypatch.setattr(measurement, "captured", capture)
    monkeypatch.setattr(measurement, "profiled", profiled)
    monkeypatch.setattr(measurement, "interleave", interleave)
    monkeypatch.setattr(measurement, "ROTATED_BYTES", 80 << 10)
    case = Case("op", "case", inputs, lambda x: x * 2, lambda x: x + x, 1 << 20, backward=True, library=True)
    rows = measure(case, "cpu:0", seconds=0.1, copy=10.0)
    assert len(made) == 1, "random numbers are made once"
    assert len(rows) == len(graphs) == 8
    for row in rows:
        assert (row.timer, row.launches) == ("graph" if captures else "profiler", 3)
        assert row.median_ms == (90.0 / 3 if captures else 2.0)
    assert all(len(graph.runs) == 1 + (80 << 10) // (32 << 10) for graph in graphs)
