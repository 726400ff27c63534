"""Where a run computes, and how precisely."""

from __future__ import annotations

import warnings

import pytest
import torch

from ddarts_ext.runs import device as devices
from ddarts_ext.runs.device import autocast, own_state


def test_bfloat16_sees_weights_that_have_moved() -> None:
    """torch keeps the bfloat16 copies of weights until the outermost autocast context ends, which is the run's."""
    device = torch.device("cpu")
    layer, x = torch.nn.Linear(4, 4), torch.ones(2, 4)
    runs = autocast(device, "bf16")
    with own_state("search", device):
        with runs():
            before = layer(x).detach()
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.mul_(2)
        with runs():
            after = layer(x).detach()
    torch.testing.assert_close(after, 2 * before)


@pytest.mark.parametrize(
    ("capability", "supported", "slow"), [("AVX512", True, False), ("AVX512", False, True), ("AVX2", True, True)]
)
def test_slow_bfloat16_says_so_once(
    monkeypatch: pytest.MonkeyPatch, capability: str, supported: bool, slow: bool
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: supported)
    devices._warn_of_slow_bfloat16.cache_clear()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for precision in ("float32", "bf16", "bf16"):
            autocast(torch.device("cpu"), precision)
        autocast(torch.device("cuda"), "bf16")
    assert [str(warning.message).split(" on ")[0] for warning in seen] == [
        "precision: bf16 is slower than float32"
    ] * slow
