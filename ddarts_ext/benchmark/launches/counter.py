"""Counts what a piece of code dispatches, and finds what would make a GPU wait."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import optimizer
from torch.utils import _foreach_utils
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import ddarts_ext
from ddarts_ext.benchmark.launches.model import launches_of
from ddarts_ext.benchmark.launches.plan import Plan
from ddarts_ext.benchmark.launches.traffic import OPTIMISERS, moved_by
from ddarts_ext.ops._launches import LAUNCHES

_PACKAGE = Path(ddarts_ext.__file__).parent


class Counted(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within it, calls are counted by op, with the launches each would be on CUDA.

    moved: the fewest bytes that these launches read and write. plan: what a plan would that does so once for every
    stored tensor. faults: calls that touch a tensor on the CPU, read a value, or give a tensor whose size depends on
    values, each with the line of the package that it comes from. Run on meta tensors code takes the way that it takes
    on a GPU.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: Counter[str] = Counter()
        self.launches: Counter[str] = Counter()
        self.moved: Counter[str] = Counter()
        self.plan = Plan()
        self.faults: Counter[str] = Counter()

    @property
    def own(self) -> int:
        """Launches of the package's ops, copies in them included."""
        return sum(count for name, count in self.launches.items() if name.startswith("ddarts_ext::"))

    @property
    def total(self) -> int:
        return sum(self.launches.values())

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name, given = func._schema.name, dict(kwargs or {})
        if name.startswith("profiler::"):
            return func(*args, **given)
        self.calls[name] += 1
        if _depends_on_values(func, args):
            self._fault(f"{name} reads values")
            if name == "aten::_local_scalar_dense":
                return 0 if not args[0].dtype.is_floating_point else 0.0
        out: Any = None if name in OPTIMISERS else func(*args, **given)
        if name == "aten::convolution" and args[0].is_contiguous(memory_format=torch.channels_last):
            out = out.contiguous(memory_format=torch.channels_last)  # as cuDNN's; on meta it is not
        if _on_cpu((args, given)):
            self._fault(f"{name} reads a tensor on the CPU")
        elif _on_cpu(out):
            self._fault(f"{name} makes a tensor on the CPU")
        self.launches[name] += self._launches(func, args, given, out)
        moved = moved_by(func, args, given, out)
        self.moved[name] += moved
        self.plan.see(name, args, moved, out)
        return out

    def _launches(self, func: torch._ops.OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> int:
        space, _, op = func._schema.name.partition("::")
        if space != "ddarts_ext":
            return launches_of(func, args, out)
        if op not in LAUNCHES:
            self._fault(f"{op} has no CUDA kernels and was not composed")
            return 0
        return int(LAUNCHES[op](*args, **kwargs))

    def _fault(self, what: str) -> None:
        self.faults[f"{what}: {_line()}"] += 1


def _depends_on_values(func: torch._ops.OpOverload, args: Sequence[Any]) -> bool:
    """Whether the host must know values: indexing by numbers need not, by masks it must."""
    if func._schema.name in ("aten::index", "aten::index_put", "aten::index_put_"):
        return any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1])
    return torch.Tag.data_dependent_output in func.tags or torch.Tag.dynamic_output_shape in func.tags


def _on_cpu(values: Any) -> bool:
    return any(isinstance(leaf, Tensor) and leaf.device.type == "cpu" for leaf in tree_leaves(values))


def _line() -> str:
    """The innermost line of the package on the stack, but for this folder and what registers ops.

    There is none in the backward of torch's own ops.
    """
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        if _PACKAGE in path.parents and path.parent != Path(__file__).parent and not path.match("ops/_*.py"):
            return f"{path.relative_to(_PACKAGE)}:{frame.lineno}"
    return "autograd or torch"


def count(step: Callable[[], None]) -> Counted:
    """What ``step`` dispatches the second time: tensors that are made once are there then, as in a captured step."""
    with meta_as_gpu():
        with Counted():
            step()
        counted = Counted()
        with counted:
            step()
    return counted


@contextmanager
def meta_as_gpu() -> Iterator[None]:
    """Within it torch's optimisers and clipping take lists of meta tensors at once, as they do on a GPU."""
    names = ("_get_foreach_kernels_supported_devices", "_get_fused_kernels_supported_devices")
    places = [(module, name) for module in (_foreach_utils, optimizer) for name in names if hasattr(module, name)]
    before = [getattr(module, name) for module, name in places]
    for (module, name), devices in zip(places, before, strict=True):
        setattr(module, name, lambda devices=devices: [*devices(), "meta"])
    try:
        yield
    finally:
        for (module, name), devices in zip(places, before, strict=True):
            setattr(module, name, devices)
