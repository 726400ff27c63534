"""The steps of either part: what is run, how long it may take."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from running import Step

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
OPS = (
    *("channel_iim", "grouped_batch_norm", "mixed_edges", "mixed_sum", "pool3x3", "relu_depthwise_conv2d"),
    *("relu_pointwise_conv2d", "relu_separable_conv2d", "spawn_group", "recurrent_node"),
)
PATIENCE = 4  # times the limits, in a rehearsal, whose machine may be a slow one
SHORT = {"tests": "python_tests/ops/test_spawn_group.py", "networks": "python_tests/nn/test_golden.py"}
"""What a rehearsal on a CPU runs instead."""
CAPTURED = [
    "python_tests/ops/test_captured.py",
    "python_tests/benchmark/test_kernels.py",
    "python_tests/search/test_graphs_on_gpu.py",
    "python_tests/search/contributions/test_contributions.py::test_a_step_can_be_captured_as_a_cuda_graph",
]


@dataclass(frozen=True)
class Wish:
    """How it is run. device: ``cuda``, or ``cpu`` in a rehearsal. dry: up to the first call of a device."""

    out: Path
    device: str = "cuda"
    dry: bool = False
    build: bool = True

    @property
    def rehearsal(self) -> bool:
        return self.dry or self.device == "cpu"


def steps_of(part: int, wish: Wish) -> list[Step]:
    """All steps of a part, in order."""
    first = [_device(wish), *_build(part, wish), _task("kernels", wish, 40, fatal=True)]
    steps = first + (_first_part(wish) if part == 1 else _second_part(wish))
    return [replace(step, limit=step.limit * PATIENCE) for step in steps] if wish.rehearsal else steps


def chosen(steps: Sequence[Step], names: Sequence[str] | None) -> list[Step]:
    """Those with these names, and those that all others need. Raises ValueError for a name that none has."""
    if names is None:
        return list(steps)
    known = [step.name for step in steps]
    for name in names:
        if name not in known:
            raise ValueError(f"gpu_check: --only must be of {', '.join(known)}, got {name}")
    return [step for step in steps if step.fatal or step.name in names]


def _first_part(wish: Wish) -> list[Step]:
    return [
        _task("small_shapes", wish, 60),
        _tests("tests", wish, 180, ["python_tests/ops"]),
        _tests("captured", wish, 90, CAPTURED),
        _tests("networks", wish, 90, ["python_tests/nn"]),
        _benchmarks("whole-steps", wish, 170, ["iteration"]),
        _task("searches", wish, 120),
        _benchmarks("shrinking-and-training", wish, 90, ["shrinking", "trainer"]),
    ]


def _second_part(wish: Wish) -> list[Step]:
    return [
        *_sanitized(wish),
        _task("profile_table", wish, 60),
        _benchmarks("op-benchmarks", wish, 200, OPS),
        _benchmarks("compiled-step", wish, 150, ["compiled_step"], "--compiled", "all"),
    ]


def _benchmarks(name: str, wish: Wish, limit: float, files: Sequence[str], *more: str) -> Step:
    """Files of benchmarks/; the rehearsal on a CPU takes the smallest ones."""
    if wish.device == "cpu":
        files = [file for file in files if file in ("trainer", "spawn_group")] or ["spawn_group"]
        more = ("--seconds", "0.02")
    return Step(name, _script("benchmarks", wish, "--files", *files, *more), limit)


def _task(name: str, wish: Wish, limit: float, *more: str, fatal: bool = False) -> Step:
    """A file beside this one."""
    return Step(name.replace("_", "-"), _script(name, wish, *more), limit, fatal)


def _script(name: str, wish: Wish, *more: str) -> list[str]:
    return [sys.executable, "-u", str(HERE / f"{name}.py"), "--device", wish.device, *(["--dry"] * wish.dry), *more]


def _device(wish: Wish) -> Step:
    return _task("device", wish, 60, fatal=True)


def _build(part: int, wish: Wish) -> list[Step]:
    """The second part builds too: it may find another machine. What is there already is not compiled again."""
    if not wish.build:
        return []
    environment = {"DDARTS_CUDA": "0" if wish.device == "cpu" else "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    if wish.dry:
        environment["TORCH_CUDA_ARCH_LIST"] = os.environ.get("TORCH_CUDA_ARCH_LIST", "9.0")
    command = [sys.executable, str(HERE / "build.py"), *(["--if-needed"] * (part == 2))]
    return [Step("build", command, 240, True, environment)]


def _tests(name: str, wish: Wish, limit: float, paths: list[str]) -> Step:
    """pytest over the installed package with 8 workers; a rehearsal collects, or on a CPU runs one op's tests."""
    if wish.device == "cpu" and name in SHORT:
        paths = [SHORT[name]]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not emulation"]
    command += ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT)]
    command += ["--junit-xml", str(wish.out / f"{name}.xml")]
    if wish.dry:
        command += ["--collect-only"]
    elif not wish.rehearsal:
        command += ["-n", "8", "--dist", "loadfile"]
    return Step(
        name,
        [*command, *(str(ROOT / path) for path in paths)],
        limit,
        environment={"DDARTS_TEST_DEVICE": "cpu" if wish.rehearsal else wish.device},
    )


def _sanitized(wish: Wish) -> list[Step]:
    """First that compute-sanitizer finds a planted fault in a kernel of ours, then that it finds none in the others."""
    if wish.device == "cpu":
        return []
    home = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda"))
    tool = shutil.which("compute-sanitizer") or str(home / "bin" / "compute-sanitizer")
    command = [tool, "--error-exitcode", "9", "--kernel-regex", "kns=ddarts", "--print-limit", "20"]
    environment = {
        "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"
    }  # else one allocation holds many tensors, and nothing is outside
    shapes = ["--dtype", "float32", "bfloat16", "--layout", "channels_last", "--shape", "4,40,24,24"]
    found = []
    for name, kind, limit, expected in (
        ("planted-memcheck", "memcheck", 40, 9),
        ("memcheck", "memcheck", 90, 0),
        ("planted-racecheck", "racecheck", 40, 9),
        ("racecheck", "racecheck", 60, 0),
    ):
        planted = name.startswith("planted")
        code = _script("planted_faults", wish, "--tool", kind) if planted else _script("small_shapes", wish, *shapes)
        if wish.dry:
            found.append(Step(name, code, limit, environment=environment))
        else:
            found.append(Step(name, [*command, "--tool", kind, *code], limit, False, environment, expected))
    return found
