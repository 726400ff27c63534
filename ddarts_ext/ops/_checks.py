"""Argument checks and dtype rules that every op shares. They run before dispatch, on shapes and dtypes alone."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

import numpy
import torch
from torch import Tensor

from ddarts_ext.ops._forward_mode import tensors_of

FLOATING = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
MOST_GROUPS = 1 << 16
"""Of an empty batch, which any number divides."""

# Asked once: Dynamo of torch 2.11 cannot trace the question.
_WITH_AUTOCAST = frozenset(
    name for name in ("cpu", "cuda", "mps", "xpu", "hpu", "mtia", "xla") if torch.amp.is_autocast_available(name)
)


_T = TypeVar("_T")


def accumulate_dtype(*dtypes: torch.dtype) -> torch.dtype:
    """Dtype of sums and statistics: float64 if any of ``dtypes`` is float64, else float32."""
    return torch.float64 if torch.float64 in dtypes else torch.float32


def memory_format_of(x: Tensor) -> torch.memory_format:
    """The layout the kernels read ``x`` in: channels_last if it is so and not contiguous as well, else contiguous."""
    if x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format


def fits(x: Tensor, shape: Sequence[int], device: torch.device) -> bool:
    """Whether ``x`` is a floating tensor of this shape on this device: what the checks below would let pass, at once.

    For lists: a node has hundreds of branches, and most of the time of a check is its message.
    """
    return (
        isinstance(x, Tensor)
        and x.dtype in FLOATING
        and x.layout == torch.strided
        and not x.is_nested
        and x.shape == shape
        and x.device == device
    )


def type_name(value: Any) -> str:
    """The name of the value's type, with its module where it is none of Python's own."""
    of = type(value)
    return of.__name__ if of.__module__ == "builtins" else f"{of.__module__.split('.')[0]}.{of.__name__}"


def listed(op: str, name: str, values: Iterable[_T], what: str = "tensors") -> list[_T]:
    """The values as a list. TypeError if they are no sequence; what a value must be is checked elsewhere.

    A tensor in the place of a list of tensors is a slip, not its rows; sets and dicts have no order to rely on.
    """
    if not isinstance(values, (list, tuple, range)) and (
        isinstance(values, (str, Tensor, set, frozenset, dict)) or not hasattr(values, "__iter__")
    ):
        raise TypeError(f"{op}: {name} must be a sequence of {what}, got {type_name(values)}")
    return list(values)


def integer(op: str, name: str, value: int, what: str = "an integer") -> int:
    """The value, as Python's own where it is NumPy's. TypeError if it counts nothing.

    True and False do not, nor does a tensor, but for sizes while a trace is recorded.
    """
    if isinstance(value, (int, torch.SymInt)) and not isinstance(value, bool):
        return value
    if isinstance(value, Tensor) and torch._C._get_tracing_state() is not None:
        return value
    if isinstance(value, (bool, Tensor)) or not hasattr(value, "__index__"):
        raise TypeError(f"{op}: {name} must be {what}, got {type_name(value)}")
    return operator.index(value)


def integers(op: str, name: str, values: Iterable[int]) -> list[int]:
    """The values as a list of Python's integers. TypeError if they are no sequence of integers."""
    found = listed(op, name, values, "integers")
    if all(type(value) is int for value in found):  # nearly always, and most of the time of a check is its message
        return found
    return [integer(op, f"{name}[{i}]", value) for i, value in enumerate(found)]


def flags_of(op: str, name: str, values: Iterable[bool]) -> list[bool]:
    """The values as a list of Python's True and False. TypeError if they are no sequence of those, or of NumPy's."""
    found = listed(op, name, values, "flags")
    for i, value in enumerate(found):
        if not isinstance(value, (bool, numpy.bool_)):
            raise TypeError(f"{op}: {name}[{i}] must be True or False, got {type_name(value)}")
    return [bool(value) for value in found]


def check_flags(op: str, **flags: bool) -> None:
    """TypeError unless each of the arguments is Python's True or False."""
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise TypeError(f"{op}: {name} must be True or False, got {type_name(value)}")


def stride_of(op: str, stride: int) -> int:
    """The stride as Python's integer. TypeError or ValueError unless it is 1 or 2."""
    stride = integer(op, "stride", stride, "1 or 2")
    if stride not in (1, 2):
        raise ValueError(f"{op}: stride must be 1 or 2, got {stride}")
    return stride


def check_4d(op: str, name: str, x: Tensor) -> None:
    """TypeError if ``x`` is not a floating tensor, ValueError if it is not [N,C,H,W]."""
    check_floating(op, name, x)
    if x.dim() != 4:
        raise ValueError(f"{op}: {name} must be [N,C,H,W], got {list(x.shape)}")


def check_image(op: str, name: str, x: Tensor) -> None:
    """:func:`check_4d`, and ValueError if ``x`` has no channel or no pixel; the batch may be empty."""
    check_4d(op, name, x)
    if min(x.shape[1:]) < 1:
        raise ValueError(f"{op}: {name} must be [N,C,H,W] with C, H and W at least 1, got {list(x.shape)}")


def check_each(
    op: str, name: str, tensors: Sequence[Tensor], shape: Sequence[int], letters: str, device: torch.device
) -> None:
    """Raise unless every tensor of a list is floating, on the device, and of the shape, which is not empty."""
    for i, x in enumerate(tensors):
        if all(shape) and fits(x, shape, device):
            continue
        check_floating(op, f"{name}[{i}]", x)
        check_same_device(op, f"{name}[{i}]", x, device)
        expected = f"{letters}=[{','.join(map(str, shape))}]"
        raise ValueError(f"{op}: {name}[{i}] must be {expected}, got {list(x.shape)}")


def check_floating(op: str, name: str, x: Tensor) -> None:
    """TypeError if ``x`` is not a dense tensor of one of the dtypes that the ops take."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{op}: {name} must be a tensor, got {type(x).__name__}")
    if x.layout != torch.strided or x.is_nested:
        got = "a nested tensor" if x.is_nested else f"the layout {dtype_name(x.layout)}"
        raise TypeError(f"{op}: {name} must be a dense tensor, got {got}")
    if x.dtype not in FLOATING:
        raise TypeError(f"{op}: {name} must be float64, float32, float16 or bfloat16, got {dtype_name(x.dtype)}")


def check_groups(op: str, name: str, batch: int, groups: int) -> None:
    """ValueError unless the batch splits into ``groups`` contiguous groups of equal size."""
    if groups < 1:
        raise ValueError(f"{op}: groups must be at least 1, got {groups}")
    if not batch and groups > MOST_GROUPS:
        raise ValueError(f"{op}: groups must be at most {MOST_GROUPS} of an empty batch, got {groups}")
    if batch % groups:
        raise ValueError(f"{op}: {name} must have a batch divisible by groups={groups}, got {batch}")


def check_eps(op: str, eps: float) -> None:
    """TypeError or ValueError unless ``eps`` is a finite number of at least 0."""
    if isinstance(eps, bool) or not isinstance(eps, (int, float, torch.SymFloat, torch.SymInt)):
        raise TypeError(f"{op}: eps must be one of Python's numbers, got {type_name(eps)}")
    if not 0 <= eps <= sys.float_info.max:  # NaN is neither
        raise ValueError(f"{op}: eps must be finite and at least 0, got {eps}")


def check_same_device(op: str, name: str, x: Tensor, device: torch.device) -> None:
    """ValueError unless ``x`` lives on ``device``."""
    if x.device != device:
        raise ValueError(f"{op}: {name} must be on {device}, got {x.device}")


def check_shape(op: str, name: str, x: Tensor, expected: Sequence[int], letters: str) -> None:
    """ValueError unless ``x`` has the shape ``expected``, which ``letters`` ("[G,C]") names in the message."""
    if list(x.shape) != list(expected):
        raise ValueError(f"{op}: {name} must be {letters}={list(expected)}, got {list(x.shape)}")


def check_given_statistics(
    op: str, mean: Tensor | None, rstd: Tensor | None, groups: int, rest: Sequence[int], letters: str
) -> None:
    """Both or neither of ``mean`` and ``rstd``; each [1 or groups, *rest]. ``letters``: names of rest, e.g. "K,C"."""
    if (mean is None) != (rstd is None):
        raise ValueError(f"{op}: mean and rstd must be given together, got only {'mean' if rstd is None else 'rstd'}")
    for name, tensor in (("mean", mean), ("rstd", rstd)):
        if tensor is None:
            continue
        check_floating(op, name, tensor)
        if tensor.dim() != len(rest) + 1 or list(tensor.shape[1:]) != list(rest) or tensor.shape[0] not in (1, groups):
            expected = f"[1 or {groups},{','.join(map(str, rest))}]"
            raise ValueError(f"{op}: {name} must be [1 or G,{letters}]={expected}, got {list(tensor.shape)}")


def check_batch_values(op: str, values: int, shape: Sequence[int]) -> None:
    """ValueError, as from torch's batch norm, when a channel of a group has a single value to take statistics of."""
    if values == 1:
        raise ValueError(
            f"{op}: batch statistics must have more than 1 value per channel and group, got input size {list(shape)}"
        )


def autocasts(device_type: str) -> bool:
    """Whether autocast is on for the devices of a type."""
    if not torch.compiler.is_compiling() and not torch._C._is_any_autocast_enabled():
        return False
    return device_type in _WITH_AUTOCAST and torch.is_autocast_enabled(device_type)


def tf32_allowed(x: Tensor) -> bool:
    """Whether products of float32 like x may be in TF32: as torch is set for convolutions on CUDA devices."""
    return x.device.type == "cuda" and _convolutions_in_tf32()


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _convolutions_in_tf32() -> bool:
    """What is compiled keeps the answer: Dynamo cannot trace the question."""
    return bool(torch.backends.cudnn.conv.fp32_precision == "tf32")  # type: ignore[attr-defined]


def out_of_autocast(reference: Callable[..., _T]) -> Callable[..., _T]:
    """A reference that computes in the dtypes it says, also where autocast would have its products in another."""

    def computed(*args: Any) -> _T:
        kinds = {kind for kind in {x.device.type for x in tensors_of(args)} if autocasts(kind)}
        if not kinds:
            return reference(*args)
        with ExitStack() as stack:
            for kind in kinds:
                stack.enter_context(torch.autocast(kind, enabled=False))
            return reference(*args)

    return computed


def dtype_name(dtype: torch.dtype | torch.layout) -> str:
    """``float32`` for ``torch.float32``."""
    return str(dtype).removeprefix("torch.")
