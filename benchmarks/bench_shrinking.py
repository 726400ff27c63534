"""Training steps of the IS-DARTS supernets before and after shrinking, and what measuring their ops costs.

Candidates: ``whole`` (no op removed), ``shrunk`` (one architecture is left), for NAS-Bench-201 also ``half`` (``none``,
pools and skips are gone, the order in which searches remove them), and ``measure`` (one batch of the scoring pass).
A shrunken network is first compared with the whole one under the same masks, in float64. Required: in the DARTS space
``shrunk`` takes at most 40 % of ``whole``; in NAS-Bench-201 time falls with the multiply-adds that are left, within
25 %; measuring takes at most 2 % of a search on 50,000 images (one pass over 200 or 600 samples in every epoch, and one
over 1,000).
"""

from __future__ import annotations

import argparse
import copy
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ddarts_ext import Genotype, spaces
from ddarts_ext.benchmark import Row, batches
from ddarts_ext.benchmark.timing import interleave
from ddarts_ext.nn import NASBench201Supernet, SearchGraph, Supernet
from ddarts_ext.nn.count import count_multiply_adds
from ddarts_ext.search.shrinking.measure import average, measured

IMAGES = 50_000
CURVE = 1_000
FOUND = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"


@dataclass(frozen=True)
class Setting:
    """A supernet with some of its ops. owner: the type of each cell. mask: [types, E, O]."""

    net: nn.Module
    weights: Tensor
    owner: tuple[int, ...]


def masks(space: str) -> dict[str, Tensor]:
    """What is left in each candidate; the architectures are those that IS-DARTS reports."""
    shape = (len(spaces.get(space).edges), len(spaces.get(space).ops))
    whole = torch.ones(2, *shape, dtype=torch.bool)
    if space == "nasbench201":
        half = whole[:1].clone()
        half[..., [0, 1, 4]] = False
        cell = torch.from_numpy(spaces.get(space).table(Genotype.from_nb201(FOUND).genes[0]))
        return {"whole": whole[:1], "half": half, "shrunk": cell[None]}
    normal = [
        ("sep_conv_5x5", 2, 0), ("sep_conv_3x3", 2, 1), ("dil_conv_5x5", 3, 0), ("sep_conv_5x5", 3, 1),
        ("sep_conv_5x5", 4, 0), ("sep_conv_5x5", 4, 1), ("sep_conv_3x3", 5, 0), ("sep_conv_5x5", 5, 2),
    ]  # fmt: skip
    reduction = [
        ("sep_conv_5x5", 2, 0), ("max_pool_3x3", 2, 1), ("dil_conv_5x5", 3, 2), ("sep_conv_5x5", 3, 2),
        ("sep_conv_5x5", 4, 0), ("sep_conv_5x5", 4, 2), ("dil_conv_5x5", 5, 0), ("sep_conv_5x5", 5, 2),
    ]  # fmt: skip
    tables = [torch.from_numpy(spaces.get(space).table(cell)) for cell in (normal, reduction)]
    return {"whole": whole, "shrunk": torch.stack(tables)}


def setting(
    space: str, mask: Tensor, device: str, *, prune: bool = True, channels: int = 16, depth: int = 5
) -> Setting:
    torch.manual_seed(0)
    net: nn.Module
    if space == "nasbench201":
        net, owner = NASBench201Supernet(channels, depth), (0,) * (3 * depth)
    else:
        net = Supernet(spaces.get(space), 8, channels)
        owner = tuple(int(i in net.reductions) for i in range(8))
    if prune:
        for cell, row in zip(net.cells, owner, strict=True):  # type: ignore[arg-type]
            assert isinstance(cell, SearchGraph)
            cell.prune(mask[row])
    weights = (mask.float() / mask.shape[-1])[list(owner)]
    return Setting(net.to(device).train(), weights.to(device), owner)


def compare(space: str) -> None:
    """RuntimeError unless a pruned network and a whole one with the same masks agree."""
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for name, mask in masks(space).items():
        pruned = setting(space, mask, "cpu", channels=4, depth=1)
        whole = setting(space, mask, "cpu", prune=False, channels=4, depth=1)
        found = [s.net.double()(images, s.weights.double()) for s in (pruned, whole)]
        error = float((found[0] - found[1]).abs().max().detach())
        if not error <= 1e-9:
            raise RuntimeError(
                f"bench: shrinking: {space} {name} must equal the masked network, differs by {error:.1e}"
            )


def training_step(given: Setting, size: int, device: str) -> Callable[[], None]:
    images, targets = batch(size, device)
    optimizer = torch.optim.SGD(given.net.parameters(), lr=0.005, momentum=0.9, weight_decay=3e-4, nesterov=True)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(given.net(images, given.weights), targets).backward()
        nn.utils.clip_grad_norm_(given.net.parameters(), 5.0)
        optimizer.step()

    return step


def scoring(given: Setting, size: int, device: str) -> Callable[[], None]:
    images, _ = batch(size, device)
    own = copy.deepcopy(given.net)

    def step() -> None:
        average(measured(own, given.weights, [images], given.owner))

    return step


def batch(size: int, device: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(size, 3, 32, 32, generator=generator).to(device).contiguous(memory_format=torch.channels_last)
    return images, torch.randint(10, (size,), generator=generator).to(device)


def measure(device: str, *, seconds: float = 1.0, **_: object) -> Iterator[Row]:
    """Rows of both spaces; ``required`` of a row is the speed-up over ``whole`` that it must reach."""
    for space, samples, epochs in (("nasbench201", 200, 30), ("isdarts", 600, 50)):
        compare(space)
        for size in batches(device):
            settings = {name: setting(space, mask, device) for name, mask in masks(space).items()}
            adds = {n: count_multiply_adds(s.net, (3, 32, 32), s.weights).convolutions for n, s in settings.items()}
            steps = {name: training_step(given, size, device) for name, given in settings.items()}
            steps["measure"] = scoring(settings["whole"], size, device)
            times = interleave(steps, device, seconds, warmup=1, least=3)
            medians = {name: statistics.median(values) for name, values in times.items()}
            # measure batches / training batches of a search, times their ratio in time, must be at most 2 %.
            limits = {"measure": (samples + CURVE / epochs) / IMAGES / 0.02}
            if space == "isdarts":
                limits["shrunk"] = 1 / 0.4
            else:
                limits |= {name: adds["whole"] / adds[name] / 1.25 for name in ("half", "shrunk")}
            for name, values in times.items():
                speedup = {other: medians[other] / medians[name] for other in medians if other != name}
                required = {"whole": limits[name]} if name in limits else {}
                case = f"{space} C=16 [{size},3,32,32]" + (f" {adds[name] / 1e6:.1f} M" if name in adds else "")
                bounds = (min(values), max(values))
                yield Row("shrinking", case, name, medians[name], bounds, len(values), None, None, speedup, required)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    for row in measure(options.device, seconds=options.seconds):
        share = "" if row.candidate == "whole" else f", {1 / row.speedup['whole']:.3f} of whole"
        limit = f" (required: at most {1 / row.required['whole']:.3f})" if row.required else ""
        print(f"{row.case:44} {row.candidate:8} {row.median_ms:9.1f} ms{share}{limit}")


if __name__ == "__main__":
    main()
