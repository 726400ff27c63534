"""The weight step of the D-DARTS supernet under ``torch.compile``: only with ``--compiled``, it compiles for minutes.

Beside it the same network as it is, and the package's, all channels-last at one batch size.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ddarts_ext.benchmark import Row, neighbour


def measure(device: str, *, seconds: float = 1.0, compiled: bool = False, **_: object) -> Iterator[Row]:
    """Rows as they are known; none unless ``compiled``."""
    if not compiled:
        return
    iteration, search_step = (neighbour(__file__, name) for name in ("bench_iteration", "bench_search_step"))
    size = iteration.batch_sizes(device)[0]
    known: dict[str, float] = {}
    for name in ("eager channels-last", "kernel channels-last", "compiled channels-last"):
        net = search_step.network(name.replace("compiled", "eager"), device)
        if name.startswith("compiled"):
            net = torch.compile(net)
        step = search_step.step_of(net, name, size, device)
        yield from iteration.rows_of(name, size, {"weight step": step}, device, seconds, known)
