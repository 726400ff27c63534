"""Options of ``pytest benchmarks/`` and one test per case of every ``bench_*.py``."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddarts_ext.benchmark import load_cases
from ddarts_ext.benchmark.timing import copy_bandwidth


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("ddarts benchmarks")
    group.addoption("--bench-device", default="cpu", help="cpu (default) or cuda")
    group.addoption("--bench-seconds", type=float, default=0.5, help="time spent on the ratios of one case")
    group.addoption("--bench-compiled", action="store_true", help="also time torch.compile of the reference")
    group.addoption("--bench-steps", action="store_true", help="also time whole search steps (slow)")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        device = metafunc.config.getoption("--bench-device")
        metafunc.parametrize("case", list(load_cases(device, folder=Path(__file__).parent)), ids=str)


@pytest.fixture(scope="session")
def bandwidth(request: pytest.FixtureRequest) -> float:
    """GB/s of a large copy, measured once a run."""
    return copy_bandwidth(request.config.getoption("--bench-device"))
