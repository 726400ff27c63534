"""One rank: runs scenarios in float64 and keeps what they come to.

python worker.py FOLDER NAME...
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddarts_ext.data import Augmentation, Dataset, MemorySplit
from ddarts_ext.genotype import Genotype
from ddarts_ext.runs.joining import joined
from ddarts_ext.runs.ranks import current
from ddarts_ext.search import Searcher, Shrinker
from ddarts_ext.search.parts import Part
from ddarts_ext.training import trainer

SEARCH: dict[str, Any] = {
    "cells": 3, "channels": 4, "steps": 2, "batch": 6, "device": "cpu", "epochs": 1, "alpha_start": 0,
    "alpha_lr": 0.02, "zero_one_start": 0.0, "sync_norms": True,
}  # fmt: skip
SHRINK = {
    "space": "nasbench201", "cells": 3, "channels": 4, "batch": 6, "device": "cpu", "epochs": 3, "shrink_steps": 1,
    "shrink_interval": 1, "measure_samples": 6, "measure_curve": 0, "sync_norms": True,
}  # fmt: skip
TRAIN: dict[str, Any] = {
    "channels": 4, "batch": 6, "device": "cpu", "epochs": 1, "drop_path": 0.3, "stem": "cifar", "sync_norms": True,
    "recipe": "darts", "cutout": 2,
}  # fmt: skip
CELL = (("skip_connect", 2, 0), ("sep_conv_3x3", 2, 1), ("max_pool_3x3", 3, 0), ("dil_conv_3x3", 3, 2))
GENOTYPE = Genotype((CELL,) * 3, concat=(2, 3))  # type: ignore[arg-type]
LOST = (("sep_conv_3x3", 2, 1), ("max_pool_3x3", 3, 0), ("dil_conv_3x3", 3, 1))
DEAD = Genotype((LOST, CELL, CELL), concat=(3,))  # type: ignore[arg-type]


class Double(Dataset):
    """Images in float64."""

    def augment(self, images: Tensor, how: Augmentation, generator: torch.Generator) -> Tensor:
        return super().augment(images, how, generator).double()

    def normalise(self, images: Tensor) -> Tensor:
        return super().normalise(images).double()


def noise(train: int = 60, test: int = 14, seed: int = 0, kind: type[Dataset] = Double) -> Dataset:
    generator = torch.Generator().manual_seed(seed)

    def split(count: int) -> MemorySplit:
        images = torch.randint(0, 256, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)
        return MemorySplit(images, torch.arange(count) % 2)

    how = Augmentation(crop_padding=1, flip=True)
    return kind("noise", split(train), split(test), ("a", "b"), (8, 8), 1, (0.5,), (0.25,), how)


class Kept(Part):
    """Holds the network at the end of the last epoch."""

    def after_epoch(self, state: Any, epoch: int, record: dict[str, Any]) -> bool:
        self.tensors = {name: tensor.clone() for name, tensor in state.net.state_dict().items()}
        self.tensors |= {f"{name} decided": tensor.clone() for name, tensor in state.decided().items()}
        self.tensors |= {f"{name} held": tensor.clone() for name, tensor in state.held.items()}
        return False


class _Double:
    """What a run needs to compute in float64; its memory is estimated in float32 alone."""

    def _initial(self) -> Any:
        state = super()._initial()  # type: ignore[misc]
        state.net.double()
        state.architecture.double()
        return state

    def _announce(self, state: Any) -> None:
        pass


class InDouble(_Double, Searcher):
    pass


class ShrinksInDouble(_Double, Shrinker):
    pass


class TrainsInDouble(trainer.Trainer):
    def _announce(self, network: Any) -> None:
        pass


def searched(method: str, images: int = 24, **settings: Any) -> dict[str, Any]:
    part = Kept()
    result = InDouble(noise(images), method, parts=[part], **{**SEARCH, **settings}).search()
    return {"tensors": {**part.tensors, "alphas": result.alphas}, "history": result.history}


class Ends(Kept):
    """Ends a search that it finds at its second epoch, as a failure does."""

    def __init__(self, at: int | None) -> None:
        self.at = at

    def before_epoch(self, state: Any, epoch: int) -> None:
        if epoch == self.at:
            raise ValueError("ends here")


def taken_up(folder: Path, world: int) -> dict[str, Any]:
    """A search of three epochs: of one process as it is; 2 ranks do the first two of another, and 3 ranks the rest."""
    run = None if world == 1 else folder / "run"
    shared = {**SEARCH, "epochs": 3, "out": run, "resume": run is not None}
    if world == 2:
        with suppress(ValueError):
            InDouble(noise(), "ddarts", parts=[Ends(2)], **shared).search()
    else:
        part = Ends(None)
        result = InDouble(noise(), "ddarts", parts=[part], **shared).search()
        return {"tensors": part.tensors, "history": result.history}
    return {"tensors": {}, "history": []}


def shrunk(**settings: Any) -> dict[str, Any]:
    part = Kept()
    result = ShrinksInDouble(noise(30), parts=[part], **{**SHRINK, **settings}).search()
    return {"tensors": part.tensors, "history": result.history}


def trained(genotype: Genotype = GENOTYPE, images: int = 30, **settings: Any) -> dict[str, Any]:
    build = trainer.build_network
    began: dict[str, Tensor] = {}

    def doubled(*arguments: Any) -> Any:
        network = build(*arguments).double()
        began.update({name: value.clone() for name, value in network.state_dict().items()})
        return network

    trainer.build_network = doubled
    try:
        result = TrainsInDouble(genotype, noise(images), **{**TRAIN, **settings}).train()
    finally:
        trainer.build_network = build
    return {"tensors": dict(result.network.state_dict()), "began": began, "history": result.history}


def refused(**settings: Any) -> dict[str, Any]:
    """What a search that is one rank's alone in something raises."""
    data = settings.pop("data", None) or noise(seed=settings.pop("images", 0))
    try:
        InDouble(data, "fairdarts", **{**SEARCH, **settings}).search()
    except ValueError as error:
        return {"error": str(error)}
    return {"error": "none"}


class Drifts(Part):
    """Moves an alpha on one rank alone."""

    def after_epoch(self, state: Any, epoch: int, record: dict[str, Any]) -> bool:
        if current().rank == 1:
            with torch.no_grad():
                state.architecture.table[0, 0, 0] += 1e-12
        return False


def failing(folder: Path) -> dict[str, Any]:
    """Rank 0 alone sees a run in the folder."""
    out = folder / f"out{current().rank}"
    if current().first:
        out.mkdir()
        (out / "checkpoint.pt").write_bytes(b"something")
    return refused(out=out)


SCENARIOS: dict[str, Any] = {
    "ddarts": lambda: searched("ddarts", ablation_inactive="random"),
    "ddarts_every_2": lambda: searched("ddarts", ablation_every=2, judge_statistics="running"),
    "darts": lambda: searched("darts", order=1),
    "second_order": lambda: searched("darts", order=2),
    "second_order_exact": lambda: searched("darts", order=2, hessian="exact"),
    "adversarial": lambda: searched("sdarts-adv"),
    "reference": lambda: searched("ddarts", reference_accumulate=True, ablation_gradient="none"),
    "selection": lambda: searched("darts-pt"),
    "oles": lambda: searched("oles"),
    "curvature": lambda: searched("darts-es"),
    # The last batch has 4 images: with 3 ranks it is left out, with 2 it is shared.
    "incomplete": lambda: searched("fairdarts", 68),
    "shrink": shrunk,
    "train": trained,
    # Images this small are trained without the head unless it is asked for.
    "train_auxiliary": lambda: trained(auxiliary_weight=0.4, images=18),
    "train_dead": lambda: trained(DEAD, auxiliary_weight=0.0),
    "train_ema": lambda: trained(ema=0.9, keep="best", held_back=0.25, images=40, epochs=2),
    "unsynchronised": lambda: searched("ddarts", sync_norms=False, epochs=2),
    "train_unsynchronised": lambda: trained(sync_norms=False, epochs=2),
}


IN_FOLDER: dict[str, Any] = {
    "taken_up": lambda folder: taken_up(folder, current().world),
    "other_images": lambda folder: refused(images=current().rank // 2),
    "other_settings": lambda folder: refused(seed=5 if current().rank == 1 else 0),
    "other_alphas": lambda folder: refused(parts=[Drifts()]),
    "failing": failing,
}


def main() -> None:
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    with joined() as ranks:
        for name in names:
            found = IN_FOLDER[name](folder) if name in IN_FOLDER else SCENARIOS[name]()
            torch.save(found, folder / f"{name}.{ranks.world}.{ranks.rank}.pt")
    print(f"done {os.getpid()}")


if __name__ == "__main__":
    main()
