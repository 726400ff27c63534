"""How much memory a step of training will need, told from one small forward pass of the network itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

_PROBE = 32
_IMAGES = 2
# What a step holds beside the kept tensors: gradients on their way, what convolutions unfold, what the allocator leaves
# between blocks. Measured on a CPU over spaces, sizes and precisions: 1.2 to 1.8, most where many small tensors are
# kept (training); python_tests/training/test_demand.py measures.
_OVERHEAD = {"cpu": 1.4, "cuda": 1.25}
# A weight, its gradient and its momentum.
_COPIES = 3
# Kernels, their threads and their tables, once a run has begun.
_LIBRARIES = 150 << 20


@dataclass(frozen=True)
class StepMemory:
    """Bytes of one step: ``fixed``, whatever the batch, and ``per_image``."""

    fixed: int
    per_image: int

    def of(self, batch: int) -> int:
        """Bytes of a step on ``batch`` images."""
        return self.fixed + batch * self.per_image

    def largest_batch(self, available: int) -> int:
        """The most images whose step fits in ``available`` bytes; 0 where not even one does."""
        return max(0, (available - self.fixed) // self.per_image)

    def times(self, factor: float) -> StepMemory:
        """Of a step that holds ``factor`` such passes."""
        return StepMemory(self.fixed, round(factor * self.per_image))


def step_memory(
    network: nn.Module,
    forward: Callable[[Tensor], Any],
    *,
    channels: int,
    size: tuple[int, int],
    divisor: int = 1,
) -> StepMemory:
    """Memory of a training step of ``network`` on images of ``size`` (height, width).

    forward: the pass that a step differentiates, of float32 images [N, channels, h, w]; it is run once, on two small
    images, and must change nothing. divisor: by which the network divides the sides of images: the small ones are a
    multiple of it. What autograd keeps of them is counted, beside the parameters, and grows with pixels and images.
    """
    device = next(network.parameters()).device
    side = max(_PROBE, 2 * divisor)
    height, width = (n if n <= side else side for n in size)
    images = torch.zeros(_IMAGES, channels, height, width, device=device)
    kept = kept_bytes(network, lambda: forward(images.contiguous(memory_format=torch.channels_last)))
    pixels = prod(size) / (height * width)
    overhead = _OVERHEAD.get(device.type, max(_OVERHEAD.values()))
    parameters = sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())
    return StepMemory(_LIBRARIES + _COPIES * parameters, max(1, round(overhead * kept * pixels / _IMAGES)))


def kept_bytes(network: nn.Module, forward: Callable[[], Any]) -> int:
    """Bytes of the tensors that autograd keeps for the backward pass of ``forward()``, each once, no parameters."""
    kept: dict[int, Tensor] = {}
    known = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage, alone = tensor.untyped_storage(), tensor.detach()  # else the graph would keep itself for ever
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = alone
        return alone

    # What is kept lives until it is counted, so an address stands for one storage.
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = forward()
        total = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    del out
    return total
