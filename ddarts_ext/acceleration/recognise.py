"""Which modules mix a list of ops, and which are cells made of such modules: by structure, whatever they are called."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from ddarts_ext.acceleration.adapter import Adapter, adapted
from ddarts_ext.acceleration.layers import layers_of
from ddarts_ext.acceleration.plan import readings


@dataclass(frozen=True, eq=False)
class Mixing:
    """A module whose forward, if it is what it looks like, adds up the weighted outputs of its ops.

    ops: every candidate. entrances: what brings the inputs of a cell to its channels. parts: the mixed ops of a cell.
    edges, width: how many mixed ops, and how many candidates the longest has.
    """

    module: nn.Module
    kind: str
    ops: tuple[nn.Module, ...]
    edges: int
    width: int
    entrances: tuple[nn.Module, ...] = ()
    parts: tuple[nn.Module, ...] = ()
    adapter: Adapter | None = field(default=None)

    @property
    def channels(self) -> list[int]:
        """Channels of the inputs: those of the entrances, else of the ops."""
        if self.entrances:
            return [channels for entrance in self.entrances if (channels := channels_of(entrance))]
        return [next((channels for op in self.ops if (channels := channels_of(op))), 0)]

    def methods(self) -> list[str]:
        """The methods that may be routed: ``forward`` and those that are called ``forward_...``."""
        names = [name for name in dir(type(self.module)) if name == "forward" or name.startswith("forward_")]
        return [name for name in names if inspect.isfunction(getattr(type(self.module), name))]


def channels_of(module: nn.Module) -> int:
    """Channels that a module reads, as its first layer with channels says; 0 where none does."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            return layer.in_channels
        if isinstance(layer, nn.BatchNorm2d):
            return layer.num_features
    return 0


def mixing(module: nn.Module) -> Mixing | None:
    """What the module looks like, or None."""
    known = adapted(module)
    if known is not None:
        return Mixing(module, "mixed op", tuple(known[1]), 1, len(known[1]), adapter=known[0])
    containers = [child for child in module._modules.values() if isinstance(child, nn.ModuleList | nn.ModuleDict)]
    for container in containers:
        if _is_op_list(_items(container)):
            ops = _items(container)
            return Mixing(module, "mixed op", tuple(ops), 1, len(ops))
    for container in containers:
        lists = [_items(item) for item in _items(container) if isinstance(item, nn.ModuleList | nn.ModuleDict)]
        if lists and len(lists) == len(container) and all(_is_op_list(ops) for ops in lists):
            every = tuple(op for ops in lists for op in ops)
            return Mixing(module, "cell", every, len(lists), max(map(len, lists)))
    for container in containers:
        parts = [mixing(item) for item in _items(container)]
        edges = [part for part in parts if part is not None and part.kind == "mixed op"]
        if edges and len(edges) == len(parts):
            entrances = tuple(child for child in module.children() if child is not container and is_sequence(child))
            return Mixing(
                module,
                "cell",
                tuple(op for edge in edges for op in edge.ops),
                len(edges),
                max(edge.width for edge in edges),
                entrances,
                tuple(edge.module for edge in edges),
            )
    return None


def is_sequence(module: nn.Module) -> bool:
    """Whether a module is made of layers that the kernels know."""
    layers = layers_of(module)
    return bool(layers) and any(True for _ in readings(module))


def _items(container: nn.Module) -> list[nn.Module]:
    return [child for child in container._modules.values() if child is not None]


def _is_op_list(modules: Sequence[nn.Module]) -> bool:
    """Two or more ops, at least one of which does more than hand its input on."""
    if len(modules) < 2 or any(isinstance(module, nn.ModuleList | nn.ModuleDict) for module in modules):
        return False
    return any(is_sequence(module) and not isinstance(module, nn.Identity | nn.ReLU) for module in modules)


def signature(op: nn.Module) -> tuple[object, ...]:
    """Equal for ops that run the same code with the same settings, whatever their parameters are."""
    found: list[object] = []
    for name, module in op.named_modules():
        plain = []
        for key, value in module.__dict__.items():
            if key in ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"):
                continue
            simple = isinstance(value, int | float | str | tuple | torch.device | torch.dtype | type(None))
            plain.append((key, repr(value) if simple or key.startswith("_") else id(value)))
        tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        found.append((name, type(module), tuple(plain), tuple((key, tuple(t.shape), t.dtype) for key, t in tensors)))
    return tuple(found)
