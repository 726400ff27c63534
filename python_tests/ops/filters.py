"""Inputs and the definition for the tests of depthwise and separable convolutions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

LAYOUTS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}


def make(
    shape: Sequence[int], filters: Sequence[tuple[int, int]], dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Tensor, list[Tensor], list[int]]:
    """Input, weights [C,1,k,k] and dilations of ``filters`` (k, dilation)."""
    x = normal(shape, dtype, seed)
    weights = [normal((shape[1], 1, k, k), torch.float64, seed + i + 1) / k for i, (k, _) in enumerate(filters)]
    return x, [weight.to(dtype) for weight in weights], [d for _, d in filters]


def normal(shape: Sequence[int], dtype: torch.dtype, seed: int) -> Tensor:
    """The same numbers on every device."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(*shape, generator=generator, dtype=torch.float64, device="cpu")
    return values.to(torch.get_default_device(), dtype)


def eager(x: Tensor, weights: Sequence[Tensor], dilations: Sequence[int], stride: int, normalize: bool, groups: int,
          mean: Tensor | None = None, rstd: Tensor | None = None) -> list[Tensor]:  # fmt: skip
    """The definition, in plain torch modules."""
    parts = []
    for g, part in enumerate(x.chunk(groups) if normalize else [x]):
        if normalize and mean is None:
            part = F.batch_norm(part, None, None, training=True, eps=1e-5)
        elif normalize:
            assert mean is not None
            assert rstd is not None
            row = g if len(mean) > 1 else 0
            part = (part - mean[row][:, None, None]) * rstd[row][:, None, None]
        parts.append(part.relu())
    z = torch.cat(parts)
    return [
        F.conv2d(z, w, None, stride, d * (w.shape[-1] - 1) // 2, d, x.shape[1])
        for w, d in zip(weights, dilations, strict=True)
    ]
