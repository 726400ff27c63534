"""Where the op tests run: ``DDARTS_TEST_DEVICE=cuda pytest python_tests/ops`` runs all of them on a GPU.

Tests create tensors without naming a device, so the default device decides. What emulates CUDA is skipped there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

DEVICE = os.environ.get("DDARTS_TEST_DEVICE", "cpu")


@pytest.fixture(autouse=True)
def _device(request: pytest.FixtureRequest, _seed: None) -> Iterator[None]:
    if DEVICE == "cpu":
        yield
        return
    if "emulated" in request.fixturenames:
        pytest.skip("the emulation is for machines without a GPU")
    with torch.device(DEVICE):
        yield
