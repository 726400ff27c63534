"""All cases under pytest-benchmark: equality and interleaved times first, then the kernel's own statistics."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from ddarts_ext.benchmark import Case, load_modules, measure, place, runner


def test_case(case: Case, bandwidth: float, benchmark: BenchmarkFixture, request: pytest.FixtureRequest) -> None:
    option = request.config.getoption
    device = option("--bench-device")
    rows = measure(case, device, seconds=option("--bench-seconds"), compiled=option("--bench-compiled"), copy=bandwidth)
    benchmark.extra_info["rows"] = [asdict(row) for row in rows]
    benchmark.extra_info["missed"] = [row.candidate for row in rows if not row.met]
    run = runner(case.kernel, place(case.inputs(), device, torch.channels_last), case.backward)

    def kernel() -> None:
        run()
        if device != "cpu":
            torch.cuda.synchronize()

    benchmark.pedantic(kernel, rounds=10, warmup_rounds=1)


def test_search_step(bandwidth: float, request: pytest.FixtureRequest) -> None:
    """Slow: whole steps of the supernet in eager PyTorch. Only when asked for with --bench-steps."""
    option = request.config.getoption
    if not option("--bench-steps"):
        pytest.skip("search steps are timed with --bench-steps")
    (module,) = load_modules(["search_step"])
    rows = module.measure(option("--bench-device"), seconds=option("--bench-seconds"), copy=bandwidth)
    assert all(row.met for row in rows)
