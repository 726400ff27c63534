"""Batch norms as part of the convolutions before them; nothing but torch is imported."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Network = TypeVar("Network", bound=nn.Module)


@torch.no_grad()
def folded(network: Network) -> Network:
    """A copy for evaluation in which no norm follows a convolution: its scale and shift are in the weights and bias.

    The norm itself is an ``nn.Identity``. One that follows a sum (NAS-Bench-201 ends with one) stays.
    """
    found = copy.deepcopy(network).eval()
    for module in list(found.modules()):
        children = dict(module.named_children())
        if isinstance(children.get("even"), nn.Conv2d):
            _fold_halves(module)
            continue
        before = ""
        for name, child in children.items():
            conv = children.get(before)
            if isinstance(child, nn.BatchNorm2d) and isinstance(conv, nn.Conv2d):
                setattr(module, before, fuse_conv_bn_eval(conv, child))
                setattr(module, name, nn.Identity())
            before = name
    return found


def _fold_halves(module: nn.Module) -> None:
    """One norm over the outputs of two convolutions side by side."""
    even, odd, norm = module.even, module.odd, module.norm
    if not (isinstance(even, nn.Conv2d) and isinstance(odd, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)):
        return
    start = 0
    for name, conv in (("even", even), ("odd", odd)):
        part = nn.BatchNorm2d(conv.out_channels, eps=norm.eps).to(conv.weight).eval()
        rows = slice(start, start + conv.out_channels)
        for key in ("weight", "bias", "running_mean", "running_var"):
            getattr(part, key).data.copy_(getattr(norm, key)[rows])
        setattr(module, name, fuse_conv_bn_eval(conv, part))
        start += conv.out_channels
    module.norm = nn.Identity()
