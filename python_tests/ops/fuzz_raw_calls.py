"""Calls the raw ops with arguments that are wrong in one or more places: any exception will do, a signal will not.

``python fuzz_raw_calls.py SEED CALLS FILE``: FILE holds the last call that was begun, for whoever finds the body.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from ops.calls import valid_calls
from torch import Tensor

from ddarts_ext.ops._library import defined_ops

NUMBERS = (-(2**63), -(2**31), -3, -1, 0, 1, 2, 3, 4, 5, 7, 2**16, 2**31, 2**40, 2**62, 2**63 - 1)
REALS = (float("nan"), float("inf"), -1.0, 0.0, 1e300)
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool)
TENSORS: tuple[Callable[[Tensor], Any], ...] = (
    lambda x: x.to(random.choice(DTYPES)),
    lambda x: x.unsqueeze(0),
    lambda x: x[..., :0],
    lambda x: x[:0],
    lambda x: x[..., :1],
    lambda x: torch.cat([x, x], 0),
    lambda x: torch.cat([x, x], -1),
    lambda x: x.flatten(),
    lambda x: x.reshape(-1)[0],
    lambda x: x.transpose(0, -1),
    lambda x: x.movedim(-1, 1),
    lambda x: x.expand(2, *x.shape).movedim(0, -1)[..., 0],
    lambda x: x.contiguous(memory_format=torch.channels_last),
    lambda x: x.to(torch.complex64),
    lambda x: x.to_sparse(),
    lambda x: torch.quantize_per_tensor(x.float(), 0.1, 0, torch.quint8),
    lambda x: x.to("meta"),
    lambda x: torch._neg_view(x),
    lambda x: x.new_full(x.shape, float("nan")),
    lambda x: x.new_empty(0),
    lambda x: None,
    lambda x: 3,
)


def changed(value: Any) -> Any:
    """The value with one thing wrong."""
    if isinstance(value, Tensor) or value is None:
        return random.choice(TENSORS)(torch.randn(4, 3, 6, 5) if value is None else value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return random.choice(NUMBERS)
    if isinstance(value, float):
        return random.choice(REALS)
    entries = list(value)
    way = random.randrange(5)
    if way == 0:
        return []
    if way == 1:
        return entries[:-1]
    if way == 2:
        return entries + entries[:1]
    if entries:
        place = random.randrange(len(entries))
        entries[place] = changed(entries[place])
    return entries


def shown(value: Any) -> str:
    """A value in a report: tensors by what they are."""
    if isinstance(value, Tensor):
        layout = f" strides {list(value.stride())}" if value.layout == torch.strided else f" {value.layout}"
        return f"{list(value.shape)} {value.dtype} on {value.device}{layout}"
    return f"[{', '.join(map(shown, value))}]" if isinstance(value, list) else repr(value)


def main(seed: int, calls: int, file: Path) -> None:
    random.seed(seed)
    torch.manual_seed(seed)
    bases = [valid_calls(), valid_calls(torch.float64)]
    assert set(bases[0]) == set(defined_ops()), "an op without a valid call in calls.py"
    finished = 0
    for call in range(calls):
        name = random.choice(defined_ops())
        args = list(random.choice(bases)[name])
        for _ in range(random.choice((1, 1, 1, 2, 3))):
            place = random.randrange(len(args))
            try:
                args[place] = changed(args[place])
            except (RuntimeError, IndexError, TypeError, NotImplementedError):
                continue  # this tensor cannot be changed in this way
        file.write_text(f"call {call} of seed {seed}: {name}({', '.join(map(shown, args))})")
        try:
            getattr(torch.ops.ddarts_ext, name)(*args)
            finished += 1
        except MemoryError:
            raise
        except Exception as error:
            if not str(error):
                raise ValueError(f"{name}: an exception without a word") from error
    print(f"{calls} calls, {finished} of them valid after all")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
