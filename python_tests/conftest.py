"""Fixtures that tests of every part share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores; their threads would spin
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from ddarts_ext import _extension


def pytest_sessionstart() -> None:
    """What was compiled has to load: tests of the references alone would pass and say nothing of it."""
    compiled = os.environ.get("DDARTS_NO_EXTENSION", "") in ("", "0") and _extension._compiled("_C") is not None
    if compiled and (reason := _extension.load().cpu_reason):
        pytest.exit(f"nothing is tested: {reason}", returncode=1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that run kernels under emulation carry a mark: ``-m "not emulation"`` leaves them out."""
    for item in items:
        if "emulated" in getattr(item, "fixturenames", ()):
            item.add_marker("emulation")


@pytest.fixture(scope="session")
def emulated() -> object:
    """The CUDA kernels on CPU tensors: ``emulated.op("mixed_sum")(...)``; skips where nothing can compile them.

    ``for order in emulated.orders():`` runs the threads in several orders; ``emulated.check_addresses(op, code)`` runs
    code under AddressSanitizer.
    """
    import shlex
    import shutil

    from cuda_emulation import build

    if shutil.which((shlex.split(os.environ.get("CXX", "")) or ["g++"])[0]) is None:
        pytest.skip("the CUDA emulation needs a C++ compiler")
    if build.toolchain.cuda_include() is None:
        pytest.skip("the CUDA emulation needs the headers of a CUDA toolkit")
    return build.Emulated()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with published data beside the project; skips where DDARTS_SHARED does not name it."""
    folder = os.environ.get("DDARTS_SHARED")
    if not folder:
        pytest.skip("DDARTS_SHARED is not set")
    return Path(folder)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _compile_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """torch.compile caches into the folder of this run, never into the user's."""
    before = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(tmp_path_factory.mktemp("inductor"))
    yield
    if before is None:
        del os.environ["TORCHINDUCTOR_CACHE_DIR"]
    else:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = before


@pytest.fixture
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the place of the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder
