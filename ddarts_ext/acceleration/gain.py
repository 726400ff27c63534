"""How much faster a module became: what is not worth it is not kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ddarts_ext.acceleration.calls import Call, is_map
from ddarts_ext.acceleration.copies import Copy, undisturbed
from ddarts_ext.acceleration.proof import Installation
from ddarts_ext.acceleration.recognise import Mixing

LEAST = 1.05
CLEAR = 2.0  # a single measurement, or two short ones, decide from here on
_DOUBTFUL = 1.3  # below it, all rounds are needed to tell a gain from noise
_ROUNDS = 9
_SHORT = 0.1  # s; what takes less is timed again once torch has chosen its kernels for the shapes


def measure_gain(found: Mixing, installed: Installation, method: str, given: Call) -> float:
    """Time of forward and backward before over that after, on the arguments, with the number of threads that is set."""
    dtype = next((p.dtype for p in found.module.parameters()), torch.float32)
    old, new = Copy(found.module, dtype), Copy(found.module, dtype)
    installed.on(found.within(new))
    given = given.map(lambda x: x.to(dtype) if x.is_floating_point() else x)
    before, after = (_pass(copied.module.train(), method) for copied in (old, new))
    after(given)  # learns what reads one tensor
    best = [_seconds(before, given), _seconds(after, given)]
    for i in range(_ROUNDS):
        ratio = best[0] / best[1]
        least = _DOUBTFUL if i >= _ROUNDS // 3 else CLEAR if i or best[0] >= _SHORT else float("inf")
        if ratio > least:
            break
        best = [min(best[0], _seconds(before, given)), min(best[1], _seconds(after, given))]
    return best[0] / best[1]


def enlarged(given: Call, images: int, sides: int) -> Call:
    """Arguments with so many times the images, and so many times the sides of feature maps."""
    return given.map(lambda x: x.repeat(images, 1, sides, sides) if is_map(x) else x)


def _pass(module: nn.Module, method: str) -> Callable[[Call], None]:
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]

    def forward_and_backward(given: Call) -> None:
        leaves: list[Tensor] = []

        def leaf(x: Tensor) -> Tensor:
            x = x.detach()
            if x.is_floating_point():
                leaves.append(x.requires_grad_())
            return x

        given = given.map(leaf)
        with undisturbed():
            result: Any = getattr(module, method)(*given.args, **given.kwargs)
        outputs = [out for out in pytree.tree_leaves(result) if isinstance(out, Tensor) and out.requires_grad]
        if outputs:
            loss = torch.stack([out.sum() for out in outputs]).sum()
            torch.autograd.grad(loss, [*leaves, *parameters], allow_unused=True)

    return forward_and_backward


def _seconds(step: Callable[[Call], None], given: Call) -> float:
    """By the clock, or of one thread on the CPU without what other processes take."""
    alone = torch.get_num_threads() == 1 and not torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    timer = time.process_time if alone else time.perf_counter
    _wait()
    start = timer()
    step(given)
    _wait()
    return timer() - start


def _wait() -> None:
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
