"""The same weights under the names of both networks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from ddarts_ext.nn.plain.network import Entry, edge_name

_IN_OP = (
    (re.compile(r"op\.module\.(.+)"), lambda m: f"op.{m[1]}"),
    (re.compile(r"op\.(first|second)\.(depthwise|pointwise)"), lambda m: f"{m[2]}{1 if m[1] == 'first' else 2}.weight"),
    (re.compile(r"op\.weight"), lambda m: "conv.weight"),
    (re.compile(r"op\.norm\.(\w+)"), lambda m: f"norm1.{m[1]}"),
    (re.compile(r"op\.(\w+_norm\.\w+)"), lambda m: m[1]),
    (re.compile(r"op\.(\w+)"), lambda m: f"{m[1]}.weight"),
    (re.compile(r"(norm\.\w+)"), lambda m: m[1]),
)
"""Within an op or a preprocessing: what its primitive and the norm after it call their tensors."""
_STEM = (
    (re.compile(r"conv\.weight"), "conv.weight", "first.conv1.weight"),
    (re.compile(r"conv\.norm\.(\w+)"), r"norm.\1", r"first.norm1.\1"),
    (re.compile(r"conv0\.weight"), "", "first.conv2.weight"),
    (re.compile(r"conv0\.norm\.(\w+)"), "", r"first.norm2.\1"),
    (re.compile(r"conv1\.weight"), "", "second.conv3.weight"),
    (re.compile(r"conv1\.norm\.(\w+)"), "", r"second.norm3.\1"),
)
_AUXILIARY = {"weight0": "conv1.weight", "norm0": "norm1", "weight1": "conv2.weight", "norm1": "norm2"}
_PLACE = re.compile(r"(cells\.\d+\.)(?:graph\.)?(ops\.(\d+)|preprocess\d)\.(.+)|(blocks\.\d\.)(first|second)\.(.+)")


def plain_names(names: Iterable[str], cells: Sequence[Sequence[Entry]], stem: str) -> dict[str, str]:
    """Our name of every tensor -> its name in the plain network. cells: the entries of each."""
    return {name: _plain(name, cells, stem) for name in names}


def _plain(name: str, cells: Sequence[Sequence[Entry]], stem: str) -> str:
    if found := _PLACE.fullmatch(name):
        cell, place, number, rest, block, half, inner = found.groups()
        if block:
            return f"{block}{half}.{_in_op(inner)}"
        if number:
            place = f"ops.{edge_name(cells[int(name.split('.')[1])][int(number)])}"
        return f"{cell}{place}.{_in_op(rest)}"
    room, _, rest = name.partition(".")
    if room == "stem":
        for pattern, plain, deep in _STEM:
            if pattern.fullmatch(rest):
                return "stem." + pattern.sub(plain if stem == "cifar" else deep, rest)
    if room == "auxiliary":
        head, dot, tail = rest.partition(".")
        return f"auxiliary.{_AUXILIARY.get(head, head)}{dot}{tail}"
    return f"{name}.weight" if name.endswith(".shortcut") else name


def _in_op(name: str) -> str:
    for pattern, plain in _IN_OP:
        if found := pattern.fullmatch(name):
            return plain(found)
    raise ValueError(f"plain: name must be that of a tensor of an op, got {name!r}")


def to_plain(state: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Our state dict -> that of the plain network, whose norms also count batches: none yet."""
    found = {names[name]: tensor for name, tensor in state.items()}
    counts = {
        name.replace("running_mean", "num_batches_tracked"): torch.zeros((), dtype=torch.long, device=tensor.device)
        for name, tensor in found.items()
        if name.endswith("running_mean")
    }
    return {**found, **counts}


def from_plain(state: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """The state dict of the plain network -> ours. Raises ValueError naming what is missing or not of it."""
    counted = {name for name in state if name.endswith("num_batches_tracked")}
    for name in sorted({*names.values()} ^ (set(state) - counted)):
        what = "not be there" if name in state else "be there"
        raise ValueError(f"load_plain_state_dict: {name} must {what}")
    return {ours: state[plain] for ours, plain in names.items()}
