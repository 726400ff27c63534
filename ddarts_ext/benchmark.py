"""Benchmarks of the ops: equality first, then eager, compiled reference and kernel timed in turn in one run.

The cases live in ``benchmarks/bench_<op>.py`` (one ``cases(device)`` function a file, plain data); this module proves
that the implementations of a case agree, times them interleaved and tabulates. ``ddarts bench`` and
``pytest benchmarks/`` both end here. How to write a case: ``benchmarks/README.md``.
"""

from __future__ import annotations

import functools
import importlib.util
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ddarts_ext.benchmark_report import Report, Row, device_stamp, table
from ddarts_ext.benchmark_timing import copy_bandwidth, interleave

__all__ = [
    "SHAPES",
    "Case",
    "Report",
    "Row",
    "batches",
    "compare",
    "device_stamp",
    "measure",
    "place",
    "run",
    "runner",
]

SHAPES: Mapping[str, tuple[tuple[int, int], ...]] = {
    # (channels, height = width) of the feature maps inside the cells of each supernet, in network order.
    "D-DARTS": ((16, 32), (32, 16), (64, 8)),
    "DARTOpti": ((32, 32), (64, 16), (128, 8), (256, 4)),
    "NAS-Bench-201": ((16, 32), (32, 16), (64, 8)),
}
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
ROTATED_BYTES = 256 << 20  # more than the last-level cache of any GPU that the kernels are built for
LAYOUTS = {"": torch.contiguous_format, " channels-last": torch.channels_last}


def batches(device: str) -> tuple[int, ...]:
    """Batch sizes measured on this kind of device."""
    return (16,) if device == "cpu" else (64, 256)


@dataclass(frozen=True)
class Case:
    """One shape of one op.

    inputs: builds the positional arguments (tensors, lists, numbers) on the CPU in the contiguous layout; tensors that
        require grad get gradients compared and timed when ``backward`` is set. It is called once per buffer.
    reference: the eager formula. kernel: the op under test. Both return a tensor or a list/tuple of tensors.
    bytes: what the kernel must move by design (forward, plus backward where timed).
    targets: required speed-up of the channels-last kernel over a candidate, by the candidate's name; with the key
        ``"candidate / implementation"`` that of another implementation.
    """

    op: str
    name: str
    inputs: Callable[[], Sequence[Any]]
    reference: Callable[..., Any]
    kernel: Callable[..., Any]
    bytes: int
    backward: bool = False
    tolerance: float | None = None
    targets: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.op} {self.name}"


def place(
    inputs: Sequence[Any], device: str, layout: torch.memory_format, dtype: torch.dtype | None = None
) -> list[Any]:
    """Fresh leaves on ``device``: 4-d tensors in ``layout``, floating ones in ``dtype``; requires_grad is kept."""

    def one(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        floating = dtype if leaf.is_floating_point() else None
        moved = leaf.detach().to(device=device, dtype=floating or leaf.dtype, copy=True)
        if moved.dim() == 4:
            moved = moved.contiguous(memory_format=layout)
        return moved.requires_grad_(leaf.requires_grad)

    return [pytree.tree_map(one, item) for item in inputs]


def _tensors(tree: Any) -> list[Tensor]:
    if type(tree) is list and all(type(leaf) is Tensor for leaf in tree):
        return tree
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


class _Fed(torch.autograd.Function):
    """One root over all outputs, whose backward hands each its gradient, as a loss does.

    ``torch.autograd.grad`` itself checks every output that it is given a gradient for: 25 us each, more than some ops.
    """

    @staticmethod
    def forward(ctx: Any, fed: Sequence[Tensor], *outputs: Tensor) -> Tensor:
        ctx.fed = fed
        return outputs[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Any, ...]:
        return None, *ctx.fed


def runner(
    function: Callable[..., Any], inputs: Sequence[Any], backward: bool
) -> Callable[[], tuple[list[Tensor], list[Tensor]]]:
    """A call that gives the outputs and, with ``backward``, the gradients of all leaves for fixed gradients of the
    outputs. What is the same every time is found here or in the first call, so that the function itself is timed."""
    leaves = [leaf for leaf in _tensors(inputs) if leaf.requires_grad]
    fed: list[Tensor] = []

    def run() -> tuple[list[Tensor], list[Tensor]]:
        outputs = _tensors(function(*inputs))
        if not backward:
            return outputs, []
        differentiable = [out for out in outputs if out.requires_grad]
        if not fed:
            fed.extend(_gradient_for(out) for out in differentiable)
        root = _Fed.apply(fed, *differentiable)  # type: ignore[no-untyped-call]
        return outputs, list(torch.autograd.grad(root, leaves, allow_unused=True))

    return run


def _gradient_for(out: Tensor) -> Tensor:
    return _fed(
        out.shape, out.dim() == 4 and out.is_contiguous(memory_format=torch.channels_last), out.dtype, out.device
    )


@functools.lru_cache(maxsize=64)
def _fed(shape: torch.Size, channels_last: bool, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The gradient that enters a backward: the same values in both layouts, not constant (norms send that to zero)."""
    values = torch.linspace(0.0, float(shape.numel()), shape.numel(), dtype=torch.float64).sin().view(shape)
    return values.to(device, dtype).contiguous(
        memory_format=torch.channels_last if channels_last else torch.contiguous_format
    )


def compare(case: Case, candidates: Mapping[str, tuple[Callable[..., Any], list[Any]]], device: str) -> None:
    """RuntimeError unless every candidate gives the outputs and gradients of the reference in float64."""
    exact_inputs = place(case.inputs(), device, torch.contiguous_format, torch.float64)
    expected = runner(case.reference, exact_inputs, case.backward)()
    for name, (function, inputs) in candidates.items():
        found = runner(function, inputs, case.backward)()
        for what, ours, theirs in zip(("output", "gradient"), found, expected, strict=True):
            for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
                tolerance = case.tolerance or TOLERANCE.get(a.dtype, 0.0)
                if not _close(a, b, tolerance):
                    raise RuntimeError(f"bench: {case}: {what} {i} of {name} must equal the reference, but differs")


def _close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    if a is None or b is None:
        return a is b
    a, b = a.detach().double(), b.detach().double()
    finite = b.isfinite()
    if a.shape != b.shape or not torch.equal(finite, a.isfinite()) or not torch.equal(a[~finite], b[~finite]):
        return False
    scale = b[finite].abs().max().clamp_min(1e-30) if finite.any() else torch.ones(())
    return bool(((a - b)[finite].abs() <= tolerance * scale).all())


def measure(
    case: Case, device: str = "cpu", *, seconds: float = 1.0, compiled: bool = False, copy: float | None = None
) -> list[Row]:
    """Compares, then times all candidates of ``case`` in turn for about ``seconds`` seconds.

    compiled: also times ``torch.compile`` of the reference. copy: GB/s of a large copy (default: measured here).
    """
    copy = copy_bandwidth(device) if copy is None else copy
    functions = {"eager": case.reference, "kernel": case.kernel}
    if compiled:
        functions["compiled"] = torch.compile(case.reference, dynamic=False)
    first = case.inputs()
    candidates = {
        name + suffix: (function, place(first, device, layout))
        for name, function in functions.items()
        for suffix, layout in LAYOUTS.items()
    }
    compare(case, candidates, device)
    steps = {name: _rotating(case, name, pair, device) for name, pair in candidates.items()}
    times = interleave(steps, device, seconds)
    medians = {name: statistics.median(values) for name, values in times.items()}
    rows = []
    for name, values in times.items():
        own = name.startswith("kernel")
        bandwidth = case.bytes / medians[name] / 1e6 if own else None
        speedup = {other: medians[other] / medians[name] for other in medians if not other.startswith("kernel")}
        required = {
            key.split(" / ")[0]: least
            for key, least in case.targets.items()
            if name == (key.split(" / ")[1] if " / " in key else "kernel channels-last")
        }
        low, high = statistics.quantiles(values, n=4)[::2] if len(values) > 1 else (values[0], values[0])
        share = bandwidth / copy if bandwidth is not None else None
        rows.append(
            Row(case.op, case.name, name, medians[name], (low, high), len(values), bandwidth, share, speedup, required)
        )
    return rows


def _rotating(
    case: Case, name: str, candidate: tuple[Callable[..., Any], list[Any]], device: str
) -> Callable[[], None]:
    """A step over rotating input buffers: one on a CPU, more bytes than the last-level cache on a GPU."""
    function, inputs = candidate
    buffers = [inputs]
    if device != "cpu":
        size = sum(tensor.nbytes for tensor in _tensors(inputs))
        layout = LAYOUTS[" channels-last" if name.endswith("channels-last") else ""]
        buffers += [place(case.inputs(), device, layout) for _ in range(min(64, ROTATED_BYTES // max(size, 1)))]
    runs = [runner(function, buffer, case.backward) for buffer in buffers]
    position = 0

    def step() -> None:
        nonlocal position
        runs[position]()
        position = (position + 1) % len(runs)

    return step


def bench_folder(folder: Path | None = None) -> Path:
    """Where the ``bench_*.py`` files are: ``folder``, else beside the package in a checkout, else inside it."""
    package = Path(__file__).resolve().parent
    places = [folder] if folder is not None else [package.parent / "benchmarks", package / "_benchmarks"]
    for place_ in places:
        if any(place_.glob("bench_*.py")):
            return place_
    raise ValueError(f"bench: folder must hold bench_*.py files, got {', '.join(map(str, places))}")


def load_modules(ops: Sequence[str] | None = None, folder: Path | None = None) -> list[ModuleType]:
    """The ``bench_*.py`` files, or those named ``bench_<op>.py`` for one of ``ops``.

    Each defines ``cases(device)``, or for what is no single op ``measure(device, seconds=, compiled=, copy=)``.
    """
    files = {path.stem.removeprefix("bench_"): path for path in sorted(bench_folder(folder).glob("bench_*.py"))}
    unknown = [op for op in ops or () if op not in files]
    if unknown:
        raise ValueError(f"bench: op must be one of {', '.join(files)}, got {', '.join(unknown)}")
    return [_module(path) for name, path in files.items() if ops is None or name in ops]


def load_cases(device: str, ops: Sequence[str] | None = None, folder: Path | None = None) -> Iterator[Case]:
    """The cases of all bench files that define ``cases(device)``; only those of ``ops`` where given."""
    for module in load_modules(ops, folder):
        if hasattr(module, "cases"):
            yield from module.cases(device)


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"ddarts_ext_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"bench: {path} must be a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _all_rows(modules: Sequence[ModuleType], device: str, **options: Any) -> Iterator[list[Row]]:
    for module in modules:
        if hasattr(module, "measure"):
            yield module.measure(device, **options)
        for case in module.cases(device) if hasattr(module, "cases") else ():
            yield measure(case, device, **options)


def run(
    ops: Sequence[str] | None = None,
    *,
    device: str = "cpu",
    threads: int | None = None,
    seconds: float = 1.0,
    compiled: bool = False,
    output: Path | None = None,
    folder: Path | None = None,
    show: Callable[[Any], None] | None = None,
) -> Report:
    """What ``ddarts bench`` does: all cases of ``ops`` (default: all), a table through ``show``, JSON to ``output``."""
    if device != "cpu" and not torch.cuda.is_available():
        raise ValueError(f"bench: device must be cpu where torch sees no GPU, got {device}")
    if threads is not None:
        torch.set_num_threads(threads)
    copy = copy_bandwidth(device)
    rows: list[Row] = []
    for measured in _all_rows(load_modules(ops, folder), device, seconds=seconds, compiled=compiled, copy=copy):
        rows += measured
        if output is not None:
            Report(device_stamp(device), copy, rows).write(output)
    report = Report(device_stamp(device), copy, rows)
    if show is not None:
        show(table(rows, f"{report.stamp.get('gpu', report.stamp['cpu'])}, large copy {copy:.1f} GB/s"))
    return report
