"""Where the op tests run: ``DDARTS_TEST_DEVICE=cuda pytest python_tests/ops`` runs all of them on a GPU.

Tests create tensors without naming a device, so the default device decides. What emulates CUDA is skipped there. With
``meta`` tests run as far as they read no values: checks, shapes, layouts, dtypes and every tensor's device.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import nullcontext

import pytest
import torch
from torch.utils import _pytree as pytree

from ddarts_ext.benchmark.kernels import tf32

DEVICE = os.environ.get("DDARTS_TEST_DEVICE", "cpu")
NO_VALUES = (
    *("cannot be called on meta tensors", "Cannot copy out of meta tensor", "aten::equal", "torch.nonzero()"),
    *("aten::_local_scalar_dense", "not supported on meta", "data-dependent", "unsupported autocast device_type"),
    "unsupported scalarType",  # of autocast on meta
)


@pytest.fixture(autouse=True)
def _device(request: pytest.FixtureRequest, _seed: None) -> Iterator[None]:
    if DEVICE == "cpu":
        yield
        return
    if DEVICE == "meta" and request.node.get_closest_marker("not_on_meta"):
        pytest.skip("for tensors with values")
    if "emulated" in request.fixturenames:
        pytest.skip("the emulation is for machines without a GPU")
    # The references are compared with: their convolutions in full float32.
    with torch.device(DEVICE), tf32(False) if DEVICE.startswith("cuda") else nullcontext():
        yield


def _there(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.is_meta else tensor.to(DEVICE)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Tensors among the parameters were made when the file was read, on a CPU."""
    if DEVICE != "cpu" and hasattr(pyfuncitem, "callspec"):
        for name, value in pyfuncitem.callspec.params.items():
            pyfuncitem.funcargs[name] = pytree.tree_map_only(torch.Tensor, _there, value)
    try:
        return (yield)
    except Exception as error:
        if DEVICE == "meta" and any(words in str(error) for words in NO_VALUES):
            pytest.skip("needs values or autocast, which meta tensors have not")
        raise
