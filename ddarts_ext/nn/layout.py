"""How the weights of a network lie in the memory of a GPU, so that no step has to copy them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import nn

from ddarts_ext.nn.cell import Normed
from ddarts_ext.nn.graph import SearchGraph
from ddarts_ext.nn.idle_bias import idle_biases
from ddarts_ext.ops._stacked import place_of

_PACKET = 16
"""Bytes at multiples of which kernels read best."""


def lay_out(net: nn.Module) -> None:
    """All parameters lie in one piece of memory: filters that run as one, and what gets its gradients from one call,
    side by side; the weights of the library's convolutions in channels-last.

    Names, shapes and values stay, and loading a state dict keeps what is done here; ``net.to``, a deep copy and pruning
    do not. On a CPU nothing is gained.
    """
    kinds: dict[tuple[torch.dtype, torch.device], list[nn.Parameter]] = {}
    for parameter in _in_order(net):
        kinds.setdefault((parameter.dtype, parameter.device), []).append(parameter)
    for parameters in kinds.values():
        _put_side_by_side(parameters)


def _in_order(net: nn.Module) -> Iterator[nn.Parameter]:
    """Every parameter once: groups that belong together, then the others. Those whose size would put what follows at an
    odd address come last."""
    left = {id(parameter): parameter for parameter in net.parameters()}
    groups = [[left.pop(id(parameter)) for parameter in group if id(parameter) in left] for group in _groups(net)]
    groups += [[parameter] for parameter in left.values()]
    for group in sorted(groups, key=_is_odd):
        yield from group


def _is_odd(group: Sequence[nn.Parameter]) -> bool:
    return any(parameter.numel() * parameter.element_size() % _PACKET for parameter in group)


def _groups(net: nn.Module) -> Iterator[list[nn.Parameter]]:
    for module in net.modules():
        if isinstance(module, SearchGraph):
            yield from module.stacked()
            yield idle_biases(module)
        elif isinstance(module, Normed):
            yield from module.op.family.stacked([module.op])


def _put_side_by_side(parameters: Sequence[nn.Parameter]) -> None:
    """Gives them one piece of memory in this order, unless they have it."""
    wanted = [parameter.detach().contiguous(memory_format=_layout(parameter)) for parameter in parameters]
    sizes = [parameter.numel() for parameter in parameters]
    memory, begin = place_of(parameters[0])
    for parameter, laid, size in zip(parameters, wanted, sizes, strict=True):
        if laid.data_ptr() != parameter.data_ptr() or place_of(parameter) != (memory, begin):
            break
        begin += size
    else:
        return
    rows = torch.split(wanted[0].new_empty(sum(sizes)), sizes)
    for parameter, laid, row in zip(parameters, wanted, rows, strict=True):
        parameter.data = row.as_strided(laid.shape, laid.stride()).copy_(laid)


def _layout(parameter: nn.Parameter) -> torch.memory_format:
    """The gradients of the library's convolutions come in channels-last, and would be copied."""
    convolves = parameter.dim() == 4 and parameter.shape[1] > 1 and parameter[0, 0].numel() > 1
    return torch.channels_last if convolves else torch.contiguous_format
