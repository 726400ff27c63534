"""How the weights of a network lie in the memory of a GPU, so that no step has to copy them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from ddarts_ext.nn.cell import Normed
from ddarts_ext.nn.graph import SearchGraph
from ddarts_ext.ops import _stacked


def lay_out(net: nn.Module) -> None:
    """Filters that run as one lie side by side, and those of the library's convolutions in channels-last.

    Names, shapes and values stay, and loading a state dict keeps what is done here; ``net.to``, a deep copy and pruning
    do not. On a CPU nothing is gained.
    """
    for parameter in net.parameters():
        if parameter.dim() == 4 and parameter.shape[1] > 1 and parameter[0, 0].numel() > 1:
            # Their gradients come like this, and would be copied.
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    for weights in _stacked_in(net):
        _stacked.put_side_by_side(weights)


def _stacked_in(net: nn.Module) -> Iterator[list[nn.Parameter]]:
    for module in net.modules():
        if isinstance(module, SearchGraph):
            yield from module.stacked()
        elif isinstance(module, Normed):
            yield from module.op.family.stacked([module.op])
