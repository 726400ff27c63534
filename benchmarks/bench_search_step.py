"""Whole training steps of the D-DARTS supernet (8 cells, C=16): forward, backward and SGD, with peak memory.

Logits and gradients of the plain PyTorch supernet and of the package's are compared first, with shared weights. Every
timed step follows another one of the same network, as in training. Peak memory on a CPU is the peak resident size of a
fresh process that takes two steps; on a GPU it is the allocator's.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import subprocess
import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ddarts_ext import spaces
from ddarts_ext.benchmark import Row, batches, neighbour
from ddarts_ext.benchmark.timing import interleave, peak_resident_bytes
from ddarts_ext.nn.supernet import Supernet

CANDIDATES = ("eager", "eager channels-last", "kernel channels-last")
TARGETS = {"cpu": {"eager": 7.0, "eager channels-last": 3.0}, "cuda": {"eager": 5.0}}
MEMORY_SHARE = 0.6  # of eager's peak at most
TOLERANCE = 1e-7  # of the largest entry, in float64: in float32 layouts differ by more, through ReLU and max pooling


def network(candidate: str, device: str) -> nn.Module:
    torch.manual_seed(0)
    net: nn.Module = Supernet(spaces.get("darts"))
    if candidate.startswith("eager"):
        module = neighbour(__file__, "eager_supernet")
        eager = module.EagerSupernet()
        module.share(net, eager)
        net = eager
    layout = torch.contiguous_format if candidate == "eager" else torch.channels_last
    return net.to(device=device, memory_format=layout).train()  # type: ignore[call-overload, no-any-return]


def batch(candidate: str, size: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Images, targets and the weights [cells, edges, ops] of all ops."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(size, 3, 32, 32, generator=generator).to(device)
    targets = torch.randint(10, (size,), generator=generator).to(device)
    weights = torch.randn(8, 14, 7, generator=generator).sigmoid().to(device)
    layout = torch.contiguous_format if candidate == "eager" else torch.channels_last
    return images.contiguous(memory_format=layout), targets, weights


def step_of(net: nn.Module, candidate: str, size: int, device: str) -> Callable[[], None]:
    images, targets, weights = batch(candidate, size, device)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.005, momentum=0.9, weight_decay=3e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images, weights), targets).backward()
        optimizer.step()

    return step


def compare(nets: dict[str, nn.Module], size: int, device: str) -> None:
    """RuntimeError unless, in float64, logits and the gradients of all parameters and of the op weights agree."""
    found = {}
    for name, original in nets.items():
        net = copy.deepcopy(original).double()
        images, targets, weights = batch(name, size, device)
        images, weights = images.double(), weights.double().requires_grad_()
        logits = net(images, weights)
        loss = nn.functional.cross_entropy(logits, targets)
        found[name] = [logits.detach(), *torch.autograd.grad(loss, [weights, *net.parameters()])]
    for name, tensors in found.items():
        for i, (ours, theirs) in enumerate(zip(tensors, found["eager"], strict=True)):
            scale = max(float(theirs.abs().max()), 1e-3)
            error = float((ours - theirs).abs().max()) / scale
            if not error <= TOLERANCE:
                raise RuntimeError(
                    f"bench: search_step: tensor {i} of {name} must equal eager's, differs by {error:.1e}"
                )


def peak_bytes(candidate: str, size: int, device: str) -> int:
    """Of two steps in a fresh process."""
    command = [sys.executable, __file__, "--peak", candidate, "--batch", str(size), "--device", device]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def measure(device: str, *, seconds: float = 1.0, compiled: bool = False, **_: object) -> list[Row]:
    """Rows of all candidates. ``compiled`` also times torch.compile of the eager network."""
    rows = []
    for size in batches(device):
        nets = {name: network(name, device) for name in CANDIDATES}
        compare(nets, 2, device)
        steps = {name: step_of(net, name, size, device) for name, net in nets.items()}
        if compiled:
            name = "compiled channels-last"
            steps[name] = step_of(torch.compile(network("eager channels-last", device)), name, size, device)
        times = interleave(steps, device, seconds, warmup=1, least=5, lead=1)
        medians = {name: statistics.median(values) for name, values in times.items()}
        for name, values in times.items():
            speedup = {other: medians[other] / medians[name] for other in medians if not other.startswith("kernel")}
            required = TARGETS[torch.device(device).type] if name.startswith("kernel") else {}
            quartiles = statistics.quantiles(values, n=4)
            peak = None if name.startswith("compiled") else peak_bytes(name, size, device)
            case = f"D-DARTS 8 cells C=16 [{size},3,32,32]"
            bounds = (quartiles[0], quartiles[2])
            rows.append(
                Row("search_step", case, name, medians[name], bounds, len(values), None, None, speedup, required, peak)
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--peak", choices=CANDIDATES, required=True)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    step = step_of(network(options.peak, options.device), options.peak, options.batch, options.device)
    step()
    step()
    if options.device == "cpu":
        print(peak_resident_bytes())
    else:
        print(torch.cuda.max_memory_allocated())


if __name__ == "__main__":
    main()
