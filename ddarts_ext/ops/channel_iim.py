"""``channel_iim``: the information measure of IS-DARTS for a list of feature maps, read as the node sum reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ddarts_ext.ops._checks import (
    accumulate_dtype,
    check_4d,
    check_floating,
    check_given_statistics,
    check_groups,
    check_same_device,
    check_shape,
    flags_of,
    listed,
)
from ddarts_ext.ops._library import define_op

_OP = "channel_iim"


def channel_iim(
    maps: Sequence[Tensor],
    *,
    mean: Tensor | None = None,
    rstd: Tensor | None = None,
    normalize: Sequence[bool] | None = None,
    form: Literal["code", "paper"] = "code",
) -> Tensor:
    """Information measure of every feature map and sample (IS-DARTS, the measure of intermediate search results).

    A pixel's values across the C channels are draws of N(mu_p, sigma_p^2); s_p^2 is their unbiased variance
    (division by C-1).

    * ``form="code"``: f = 3(C-1)/C * mean_p s_p^-4, which is what the published code's mean over C, H and W of
      3(x-mu)^2/s^6 comes to; smaller is more important. A pixel with zero variance makes the sample +inf.
    * ``form="paper"``: m = (sum_p 1/(2 s_p^4))^-1, larger is more important; a pixel with zero variance makes it 0.

    maps: K tensors [N,C,H,W] of one shape, floating, any layout (contiguous and channels-last are read in place).
        With one channel there is no variance: the measure is that of zero variance.
    mean, rstd: [1 or G,K,C], together or not at all: maps are raw and (x - mean) * rstd is measured, with the row of
        the sample's group (G contiguous groups of equal size in the batch).
    normalize: which maps mean and rstd apply to; default all where they are given.

    Returns [K,N], float64 if any map is float64, else float32. The measure is a score: it has no gradient.
    The variance is taken about each pixel's own first channel or mean, never as a difference of large squares.
    """
    maps = listed(_OP, "maps", maps)
    if not maps:
        raise ValueError(f"{_OP}: maps must be a non-empty list of tensors, got []")
    for k, x in enumerate(maps):
        check_4d(_OP, f"maps[{k}]", x)
        check_shape(_OP, f"maps[{k}]", x, maps[0].shape, "[N,C,H,W]")
        check_same_device(_OP, f"maps[{k}]", x, maps[0].device)
    if min(maps[0].shape[1:]) < 1:
        raise ValueError(f"{_OP}: maps must have at least one channel and pixel, got {list(maps[0].shape)}")
    if not isinstance(form, str) or form not in ("code", "paper"):
        raise ValueError(f'{_OP}: form must be "code" or "paper", got {form!r}')
    acc = accumulate_dtype(*(x.dtype for x in maps))
    flags = [mean is not None] * len(maps) if normalize is None else flags_of(_OP, "normalize", normalize)
    if len(flags) != len(maps):
        raise ValueError(f"{_OP}: normalize must have one flag per map, {len(maps)}, got {len(flags)}")
    if mean is None and any(flags):
        raise ValueError(f"{_OP}: mean and rstd must be given where normalize asks for them, got None")
    if mean is not None:
        check_floating(_OP, "mean", mean)
    groups = 1 if mean is None or mean.dim() == 0 else mean.shape[0]
    check_given_statistics(_OP, mean, rstd, groups, (len(maps), maps[0].shape[1]), "K,C")
    if mean is not None and rstd is not None:
        check_same_device(_OP, "mean", mean, maps[0].device)
        check_same_device(_OP, "rstd", rstd, maps[0].device)
        check_shape(_OP, "rstd", rstd, mean.shape, "[G,K,C]")
        check_groups(_OP, "maps", maps[0].shape[0], groups)
        mean, rstd = mean.to(acc), rstd.to(acc)
    if acc == torch.float64:
        maps = [x.to(acc) for x in maps]
    with torch.no_grad():
        result: Tensor = _forward(maps, mean, rstd, flags, form == "paper")
    return result


def channel_iim_reference(
    maps: Sequence[Tensor], mean: Tensor | None, rstd: Tensor | None, normalize: Sequence[bool], paper: bool
) -> Tensor:
    """The measure in plain torch, map by map."""
    acc = accumulate_dtype(*(x.dtype for x in maps))
    rows = []
    for k, x in enumerate(maps):
        values = x.to(acc)
        if normalize[k] and mean is not None and rstd is not None:
            values = _normalized(values, mean[:, k], rstd[:, k])
        values = values - values[:, :1]  # makes a constant pixel exactly zero
        channels = x.shape[1]
        variance = values.var(1, unbiased=True) if channels > 1 else torch.zeros_like(values[:, 0])
        information = variance.square().reciprocal().flatten(1)
        if paper:
            rows.append((information.sum(1) / 2).reciprocal())
        else:
            # One channel: no variance, counted as zero variance (0 * inf would be NaN).
            factor = 3 * (channels - 1) / channels if channels > 1 else 1.0
            rows.append(factor * information.mean(1))
    return torch.stack(rows)


def _normalized(x: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
    groups, channels = mean.shape
    split = x.reshape(groups, -1, *x.shape[1:]) if x.shape[0] else x.unsqueeze(0)
    shape = (groups, 1, channels, 1, 1)
    if not x.shape[0]:
        return x
    return ((split - mean.reshape(shape)) * rstd.reshape(shape)).reshape(x.shape)


def _fake(
    maps: Sequence[Tensor], mean: Tensor | None, rstd: Tensor | None, normalize: Sequence[bool], paper: bool
) -> Tensor:
    return maps[0].new_empty((len(maps), maps[0].shape[0]), dtype=accumulate_dtype(*(x.dtype for x in maps)))


_forward = define_op(
    "channel_iim(Tensor[] maps, Tensor? mean, Tensor? rstd, bool[] normalize, bool paper) -> Tensor",
    reference=channel_iim_reference,
    fake=_fake,
)
