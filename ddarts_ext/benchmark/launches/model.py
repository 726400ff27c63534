"""How many kernels torch's own ops launch on CUDA: a model, for counting without a GPU.

An op is one launch, except:

- views, and tensors that are made without a value, are none;
- a convolution is one (cuDNN may add a change of layout), its backward one for every gradient that is asked for;
- what fills a tensor and then writes into it is two: padding, the gradient of a slice or of a choice of rows;
- ``cat`` and ``stack`` copy up to 128 tensors at once;
- ops on lists of tensors and the optimisers take as many tensors at once as torch's multi-tensor kernels do: the norms
  of a list need one more, that adds up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

NONE = frozenset(
    {"aten::empty", "aten::empty_strided", "aten::empty_like", "aten::new_empty", "aten::new_empty_strided"}
    | {"aten::lift_fresh", "aten::detach", "aten::alias", "aten::_reshape_alias", "aten::_unsafe_view", "aten::set_"}
)
TWO = frozenset(
    {"aten::constant_pad_nd", "aten::slice_backward", "aten::select_backward", "aten::masked_fill"}
    | {"aten::nll_loss_backward", "aten::index_add", "aten::index_put"}
)
_MOST_TENSORS = {1: 110, 2: 64, 3: 48, 4: 36, 5: 30}
_MOST_BLOCKS, _CHUNK = 320, 65536
_TOGETHER_IN_CAT = 128


def launches_of(func: torch._ops.OpOverload, args: Sequence[Any], out: Any) -> int:
    """Launches of a call of one of torch's ops; out: what it gives."""
    name = func._schema.name
    if name in NONE or func.is_view:
        return 0
    if name in SPECIAL:
        return SPECIAL[name](args)
    if isinstance(out, Tensor) and out.numel() == 0:
        return 0
    return 2 if name in TWO else 1


def multi_tensor(tensors: Sequence[Tensor], depth: int) -> int:
    """Launches of a kernel over lists of tensors, ``depth`` lists at once: torch's multi_tensor_apply."""
    count = held = blocks = 0
    for tensor in tensors:
        if not tensor.numel():
            continue
        held += 1
        chunks = math.ceil(tensor.numel() / _CHUNK)
        for chunk in range(chunks):
            blocks += 1
            last = chunk == chunks - 1
            if blocks == _MOST_BLOCKS or (last and held == _MOST_TENSORS[depth]):
                count, blocks, held = count + 1, 0, 0 if last else 1
    return count + (1 if blocks else 0)


def _list(depth: int, more: int = 0) -> Callable[[Sequence[Any]], int]:
    return lambda args: multi_tensor(args[0], depth) + more


SPECIAL: dict[str, Callable[[Sequence[Any]], int]] = {
    "aten::convolution_backward": lambda args: sum(args[-1]),
    "aten::cat": lambda args: math.ceil(len(args[0]) / _TOGETHER_IN_CAT),
    "aten::stack": lambda args: math.ceil(len(args[0]) / _TOGETHER_IN_CAT),
    "aten::_foreach_norm": _list(1, more=1),
    "aten::_foreach_mul_": _list(1),
    "aten::_foreach_add_": _list(1),
    "aten::_foreach_lerp_": _list(2),
    "aten::_fused_sgd_": _list(3),
    "aten::_fused_adam_": _list(4),
}
