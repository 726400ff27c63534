"""The modules of the packages themselves, where they are installed."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from acceleration import conventions as user
from acceleration.equality import assert_same, features, run, spread
from torch import nn

from ddarts_ext import accelerate, restore
from ddarts_ext.acceleration.adapter import adapted

C = user.C


@pytest.fixture(scope="module")
def nni() -> Any:
    pytest.importorskip("pytorch_lightning", reason="NNI 3.0 (pip install nni pytorch-lightning) is not installed")
    return pytest.importorskip(
        "nni.nas.oneshot.pytorch.supermodule.differentiable",
        reason="NNI 3.0 (pip install nni pytorch-lightning) is not installed",
        exc_type=ImportError,
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("kind", ["softmax", "gumbel"])
def test_nni(nni: Any, kind: str, named: bool) -> None:
    from nni.mutable.frozen import frozen_context

    softmax = nn.Softmax(-1) if kind == "softmax" else nni.GumbelSoftmax(-1)
    ops = [*user.ops(C, 1), user.Scaled(C)]
    candidates = {f"op{i}": op for i, op in enumerate(ops)} if named else ops
    with frozen_context({"edge": "op0" if named else 0}):  # what a ModelSpace does around its layers
        layer = nni.DifferentiableMixedLayer(candidates, nn.Parameter(torch.randn(len(ops))), softmax, "edge")
    before = spread(layer).double()
    module = copy.deepcopy(before)
    known = adapted(module)
    assert known is not None
    assert len(known[1]) == len(ops)
    given = features((C, 1))
    report = accelerate(module, least_gain=0)
    assert [entry.methods for entry in report.replaced] == [("forward",)], report
    for training in (True, False):
        for one in (before, module):
            one.train(training)
        for _ in range(2):
            assert_same(run(module, "forward", given), run(before, "forward", given))
    assert type(restore(module)) is type(before)
