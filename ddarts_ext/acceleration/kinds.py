"""What two modules must have in common to run the same code: then one proof serves both, up to the sizes."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

_TORCH = frozenset(nn.Module().__dict__) - {"training"}
_SIZES: dict[type, tuple[str, ...]] = {
    nn.Conv2d: ("in_channels", "out_channels", "groups"),
    nn.BatchNorm2d: ("num_features",),
}


class Kinds:
    """Numbers of the descriptions of modules without their channels; every module is described once."""

    def __init__(self) -> None:
        self._known: dict[nn.Module, int] = {}
        self._numbers: dict[tuple[object, ...], int] = {}

    def of(self, module: nn.Module) -> int:
        """Equal for modules of the same classes and settings, whatever their parameters and channels are."""
        if module not in self._known:
            children = tuple(
                (name, None if child is None else self.of(child)) for name, child in module._modules.items()
            )
            described = (*self._own(module), children)
            self._known[module] = self._numbers.setdefault(described, len(self._numbers))
        return self._known[module]

    def _own(self, module: nn.Module) -> tuple[object, ...]:
        cls = type(module)
        sizes = _SIZES.get(cls.__dict__.get("_ddarts_base", cls), ())
        state = module.__dict__
        settings = [(key, _described(value)) for key, value in state.items() if key not in _TORCH and key not in sizes]
        if isinstance(module, nn.Conv2d):
            settings.append(("depthwise", module.groups == module.in_channels and module.groups > 1))
            settings.append(("grouped", module.groups > 1))
        tensors = [
            (key, None if tensor is None else (tensor.dim(), tensor.dtype, tensor.requires_grad))
            for table in (module._parameters, module._buffers)
            for key, tensor in table.items()
        ]
        return cls, tuple(settings), tuple(tensors)


def _described(value: Any) -> object:
    if type(value) in (int, float, str, bool, type(None), torch.dtype, torch.device):
        return type(value), value
    if type(value) in (tuple, list):
        return type(value), tuple(map(_described, value))
    if type(value) is dict:
        return dict, tuple((_described(key), _described(entry)) for key, entry in value.items())
    return id(value)
