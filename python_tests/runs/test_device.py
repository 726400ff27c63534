"""Where a run computes, and how precisely."""

from __future__ import annotations

import torch

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
