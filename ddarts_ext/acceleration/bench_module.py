"""``ddarts bench --module path.py:make_model``: a user's own model before and after, equality first."""

from __future__ import annotations

import copy
import importlib.util
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ddarts_ext.acceleration.routing import accelerate
from ddarts_ext.benchmark import LAYOUTS
from ddarts_ext.benchmark.report import Report, Row, device_stamp
from ddarts_ext.benchmark.timing import check_seconds, interleave
from ddarts_ext.runs.device import set_threads
from ddarts_ext.runs.files import check_target

TOLERANCE = 1e-8  # of the largest entry of all tensors compared, in float64


@dataclass(frozen=True)
class Workload:
    """A model before and after, and what its forward takes."""

    op: str
    case: str
    before: nn.Module
    after: nn.Module
    inputs: Sequence[Any]


def load(target: str) -> tuple[nn.Module, tuple[Any, ...]]:
    """Model and inputs of ``path.py:make_model``, a function that returns ``(model, inputs)``.

    inputs: a tensor, or a tuple of the model's arguments. The file is run: name only one that you trust.
    Raises ValueError for a file, name or result that is not of this form.
    """
    path, colon, name = target.rpartition(":")
    if not colon or not Path(path).is_file():
        raise ValueError(f"bench: --module must be path.py:make_model with an existing file, got {target}")
    spec = importlib.util.spec_from_file_location("ddarts_bench_module", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"bench: --module must name a Python file, got {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    make = getattr(module, name, None)
    if not callable(make):
        raise ValueError(f"bench: --module must name a function of {path}, got {name}")
    made = make()
    if not (isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], nn.Module)):
        raise ValueError(f"bench: {name} must return (model, inputs), got {type(made).__name__}")
    model, inputs = made
    return model, tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)


def run_module(
    target: str,
    *,
    device: str = "cpu",
    threads: int | None = None,
    seconds: float = 1.0,
    output: Path | None = None,
    show: Callable[[Any], None] = print,
) -> Report:
    """Accelerate a copy of the model, compare it with the original, time both in either layout."""
    check_seconds("bench", seconds)
    if output is not None:
        check_target("bench: output", output)
    if threads is not None:
        set_threads(threads, "bench")
    before, inputs = load(target)
    before = before.to(device)
    inputs = pytree.tree_map(lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf, inputs)
    after = copy.deepcopy(before)
    show(str(accelerate(after, inputs)))
    rows = rows_of(Workload("accelerate", Path(target.rpartition(":")[0]).stem, before, after, inputs), device, seconds)
    for row in rows:
        times = ", ".join(f"{speedup:.2f}x {name}" for name, speedup in row.speedup.items() if name != row.candidate)
        show(f"{row.case}, {row.candidate}: {row.median_ms:.1f} ms ({times})")
    report = Report(device_stamp(device), 0.0, rows)
    if output is not None:
        report.write(output)
    return report


def rows_of(
    workload: Workload,
    device: str,
    seconds: float,
    targets: Mapping[str, Mapping[str, float]] | None = None,
    steps: Sequence[str] = ("forward", "training step"),
) -> list[Row]:
    """Rows of ``eager`` and ``accelerated`` in either layout, of the steps that are named.

    targets: by layout suffix, the speed-up over a candidate that the accelerated training step must reach.
    RuntimeError where the two models differ.
    """
    compare(workload)
    rows = []
    for what in steps:
        step_of, timed = _STEPS[what], {}
        for name, model in (("eager", workload.before), ("accelerated", workload.after)):
            for suffix, layout in LAYOUTS.items():
                timed[name + suffix] = step_of(*_in_layout(model, workload.inputs, layout))
        times = interleave(timed, device, seconds, warmup=2, least=3)
        medians = {name: statistics.median(values) for name, values in times.items()}
        for name, values in times.items():
            quartiles = statistics.quantiles(values, n=4)
            speedup = {other: medians[other] / medians[name] for other in medians if other.startswith("eager")}
            suffix = name.removeprefix("accelerated")
            required = (targets or {}).get(suffix, {}) if what == "training step" and suffix != name else {}
            case, bounds = f"{workload.case} {what}", (quartiles[0], quartiles[2])
            rows.append(Row(workload.op, case, name, medians[name], bounds, len(values), None, None, speedup, required))
    return rows


def compare(workload: Workload) -> None:
    """RuntimeError unless outputs and parameter gradients agree in float64, in train and eval mode."""
    for training in (True, False):
        found = []
        for model in (workload.before, workload.after):
            exact = copy.deepcopy(model).double().train(training)
            inputs = pytree.tree_map(_double, tuple(workload.inputs))
            torch.manual_seed(0)
            loss, outputs = _loss(exact(*inputs))
            parameters = [p for p in exact.parameters() if p.requires_grad]
            found.append([*outputs, *torch.autograd.grad(loss, parameters, allow_unused=True)])
        largest = max(float(t.detach().abs().max()) for t in found[0] if t is not None and t.numel())
        for i, (theirs, ours) in enumerate(zip(*found, strict=True)):
            if theirs is None or ours is None:
                equal = theirs is ours
            else:
                equal = bool(((theirs - ours).abs() <= TOLERANCE * max(largest, 1e-30)).all())
            if not equal:
                raise RuntimeError(f"bench: tensor {i} of the accelerated model must equal the original's, but differs")


def _double(leaf: Any) -> Any:
    return leaf.double() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf


def _loss(result: Any) -> tuple[Tensor, list[Tensor]]:
    outputs = [out for out in pytree.tree_leaves(result) if isinstance(out, Tensor) and out.is_floating_point()]
    return torch.stack([out.square().mean() for out in outputs]).sum(), outputs


def _in_layout(model: nn.Module, inputs: Sequence[Any], layout: torch.memory_format) -> tuple[nn.Module, list[Any]]:
    def place(leaf: Any) -> Any:
        return leaf.contiguous(memory_format=layout) if isinstance(leaf, Tensor) and leaf.dim() == 4 else leaf

    placed: nn.Module = copy.deepcopy(model).to(memory_format=layout)  # type: ignore[call-overload]
    return placed.train(), [pytree.tree_map(place, argument) for argument in inputs]


def _forward(model: nn.Module, inputs: Sequence[Any]) -> Callable[[], None]:
    def step() -> None:
        with torch.no_grad():
            model(*inputs)

    return step


def _training_step(model: nn.Module, inputs: Sequence[Any]) -> Callable[[], None]:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        _loss(model(*inputs))[0].backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


_STEPS = {"forward": _forward, "training step": _training_step}
