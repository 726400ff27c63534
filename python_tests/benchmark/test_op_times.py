"""Times of ops and of networks."""

from __future__ import annotations

import pytest
import torch
from costs.sizes import sizes

from ddarts_ext.benchmark.op_times import architectures, compared, measure_ops
from ddarts_ext.costs.latency import places


def test_ops_are_measured_and_predict_networks() -> None:
    of = sizes(cells=3, channels=2, steps=1)
    measured = measure_ops(of, "cpu", batch=2, seconds=0.01)
    assert {*measured.ops} == {*places(of)}
    for time in measured.ops.values():
        low, high = time.quartiles_ms
        assert 0 < low <= time.median_ms <= high
        assert (time.timer, time.rounds >= 5) == ("clock", True)
    assert len(measured.rests_ms) == 8
    found = compared(measured, architectures(of, 4, seed=1), "cpu", seconds=0.01)
    assert -1 <= found.correlation <= 1
    assert len(found.predicted_ms) == len(found.measured_ms) == 4
    assert found.mean_error >= 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_as_graphs() -> None:
    of = sizes(cells=6, channels=16, size=(32, 32), sharing="normal_reduction")
    measured = measure_ops(of, "cuda", batch=16, seconds=10)
    assert {time.timer for time in measured.ops.values()} == {"graph"}
    found = compared(measured, architectures(of, 20, seed=1), "cuda", seconds=5)
    assert found.correlation > 0.9
