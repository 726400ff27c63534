"""Where code bases that many people use keep the candidates of a mixed op. None of them is imported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from ddarts_ext.acceleration.layers import channels_of


@dataclass(frozen=True)
class Known:
    """Modules of the classes ``names``, or derived from one, of a package.

    attribute: which attribute holds the candidates, in a list or a ModuleList, or with ``keyed`` the keys by which the
    module returns them. edge: the weights come as an attribute of this name of an object, the second argument.
    """

    package: str
    names: tuple[str, ...]
    attribute: str
    keyed: bool = False
    edge: str | None = None

    def primitives(self, module: nn.Module) -> Sequence[nn.Module] | None:
        """The candidates, or None where the module is not of these classes."""
        if not any(self._names(cls) for cls in type(module).__mro__):
            return None
        held = getattr(module, self.attribute, None)
        if held is None:
            return None
        found = [module[key] if self.keyed else key for key in held]  # type: ignore[index]
        return found if all(isinstance(one, nn.Module) for one in found) else None

    def probe(self, module: nn.Module) -> Sequence[Any] | None:
        """A feature map and the data of an edge, where the weights come in such; else None."""
        if self.edge is None:
            return None
        candidates = self.primitives(module) or ()
        channels = next((n for one in candidates if (n := channels_of(one))), 0)
        generator = torch.Generator().manual_seed(19)
        weights = torch.randn(len(candidates), generator=generator)
        return torch.randn((4, channels, 20, 12), generator=generator), SimpleNamespace(**{self.edge: weights})

    def _names(self, cls: type) -> bool:
        return cls.__name__ in self.names and cls.__module__.partition(".")[0] == self.package


SHIPPED = (
    Known("nni", ("LayerChoice",), "names", keyed=True),
    Known("naslib", ("MixedOp",), "primitives", edge="alpha"),
    Known("confopt", ("OperationChoices", "OperationBlock"), "ops"),
)
