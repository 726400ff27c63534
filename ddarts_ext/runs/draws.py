"""Random numbers from a generator of one's own, also in code that asks for none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_RANDOM: frozenset[Callable[..., Any]] = frozenset(
    (
        *(getattr(nn.init, f"{kind}_") for kind in ("uniform", "normal", "trunc_normal", "orthogonal", "sparse")),
        *(getattr(nn.init, f"{kind}_{how}_") for kind in ("kaiming", "xavier") for how in ("uniform", "normal")),
        *(getattr(Tensor, name) for name in ("uniform_", "normal_", "bernoulli_", "random_", "exponential_")),
        *(getattr(torch, name) for name in ("rand", "randn", "randint", "randperm", "bernoulli", "normal")),
        torch.multinomial,
    )
)


class DrawsFrom(TorchFunctionMode):
    """Within it, this thread's random functions draw from ``generator`` instead of torch's global generator.

    So a network can be initialised from a seed while other threads draw, and the global generator is left as it was.
    The numbers are those of a global generator in the same state.
    """

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.generator = generator

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if func in _RANDOM and given.get("generator") is None:
            given["generator"] = self.generator
        return func(*args, **given)
