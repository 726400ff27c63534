"""``optimise``: improve a network that exists, and say what it gained (DARTOpti, in D-DARTS, 2108.09306).

The network is encoded, pre-trained and searched from, with early stop; the start and the result are then trained by one
recipe and judged alike, as :mod:`ddarts_ext.comparison.run` does with methods.
"""

from __future__ import annotations

import functools
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ddarts_ext.comparison.work import Trained, check_training, once
from ddarts_ext.data import Dataset, load
from ddarts_ext.data.subset import held_out
from ddarts_ext.distance import architecture_distance
from ddarts_ext.genotype import Genotype
from ddarts_ext.genotype.start import Start
from ddarts_ext.nn.count import count_multiply_adds, count_parameters
from ddarts_ext.runs.device import choose_device
from ddarts_ext.runs.folder import RunFolder
from ddarts_ext.search import Searcher
from ddarts_ext.training.evaluate import accuracy
from ddarts_ext.training.recipes import recipe_for
from ddarts_ext.training.trainer import Trainer


@dataclass(frozen=True)
class Network:
    """The start or the result, trained ``trainings`` times. mean: accuracy on the test images, of each training once;
    error: its standard error, None of a single training. held_out: accuracy on the training images held out.
    multiply_adds: of convolutions and linear layers, for one image."""

    trainings: int
    mean: float
    error: float | None
    held_out: float
    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class Optimised:
    """The outcome. gain: accuracy of the result less that of the start, error: the standard error of that, None of a
    single training each. distance: between the two architectures (D-DARTS, section 3.5). epochs: of the search;
    settled: whether it ended early, as the distance to the start no longer changed. seconds: of the search."""

    start: Network
    result: Network
    genotype: Genotype
    gain: float
    error: float | None
    distance: float
    epochs: int
    settled: bool
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(replace(self, genotype=None)), "genotype": self.genotype.to_json()}  # type: ignore[arg-type]


def optimise(
    start: str | Path | Genotype | Start,
    data: Any = "digits",
    *,
    out: str | Path,
    resume: bool = False,
    device: str = "auto",
    search: Mapping[str, Any] | None = None,
    train: Mapping[str, Any] | None = None,
    train_seeds: int = 1,
    holdout: float = 0.2,
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> Optimised:
    """Search from ``start`` by DARTOpti, then train start and result equally and compare them.

    start: what :meth:`Start.load` takes: the name of an architecture, a genotype file, a run. data: what
    :func:`ddarts_ext.data.load` takes. out: the folder; the search is the run ``search`` in it, the trainings are those
    in ``networks``. resume: continue there. search, train: arguments of the Searcher and of both Trainers. train_seeds:
    trainings of each network, of the same seeds. holdout: part of the training images that neither sees; the test
    images judge every trained network once.

    Raises ValueError, TypeError or OSError for wrong input.
    """
    if train_seeds < 1:
        raise ValueError(f"optimise: train_seeds must be >= 1, got {train_seeds}")
    if not 0 < holdout < 1:
        raise ValueError(f"optimise: holdout must be between 0 and 1, got {holdout}")
    encoded, where = Start.load(start), str(choose_device(device, "optimise"))
    whole = load(data)
    check_training("optimise", whole, train or {})
    images = held_out(whole, holdout, seed)
    plan: dict[str, Any] = {
        "version": 1,
        "command": "optimise",
        "start": encoded.to_json(),
        "data": str(data) if isinstance(data, (str, Path)) else whole.name,
        "search": dict(search or {}),
        "train": dict(train or {}),
        "train_seeds": train_seeds,
        "holdout": holdout,
        "seed": seed,
    }
    folder = RunFolder(out, "optimise")
    searcher = functools.partial(Searcher, images, "dartopti", start=encoded, seed=seed, device=where)
    if not resume:
        searcher(**plan["search"])  # wrong settings are refused before anything is written
    with folder.session():
        folder.open(plan, resume=resume)
        folder.begin(plan)
        found = searcher(**plan["search"], out=folder.path / "search", resume=True).search()
        last = found.history[-1]
        say(f"searched {len(found.history)} epochs in {found.seconds:.0f} s, read by the rule {found.rule}")
        recipe = {"recipe": recipe_for(folder.path / "search", found.genotype)}
        bench = _Trainings(whole, images, folder.path / "networks", where, {**recipe, **plan["train"]}, seed, say)
        networks = {"start": encoded.network, "result": found.genotype}
        judged = {name: bench.network(name, genotype, train_seeds) for name, genotype in networks.items()}
        errors = [network.error for network in judged.values() if network.error is not None]
        result = Optimised(
            **judged,
            genotype=found.genotype,
            gain=judged["result"].mean - judged["start"].mean,
            error=math.hypot(*errors) if errors else None,
            distance=architecture_distance(encoded.network, found.genotype),
            epochs=len(found.history),
            settled=bool(last.get("distance", {}).get("settled")),
            seconds=found.seconds,
        )
        folder.write_json("optimised.json", result.to_json())
    return result


@dataclass(frozen=True)
class _Trainings:
    """Trains networks alike, each in a folder that a killed command takes up again."""

    whole: Dataset
    images: Dataset
    folder: Path
    device: str
    settings: Mapping[str, Any]
    seed: int
    say: Callable[[str], None]

    def network(self, name: str, genotype: Genotype, seeds: int) -> Network:
        outcomes = []
        for seed in range(self.seed, self.seed + seeds):
            place = self.folder / f"{name}-{seed}"
            work = functools.partial(self._train, genotype, seed, place)
            outcomes.append(once(place / "judged.json", _Judged, work, "optimise"))
            self.say(f"trained {name}, seed {seed}: held out {outcomes[-1].chosen_by:.2%}")
        tests = [one.test for one in outcomes]
        return Network(
            trainings=len(tests),
            mean=statistics.fmean(tests),
            error=statistics.stdev(tests) / math.sqrt(len(tests)) if len(tests) > 1 else None,
            held_out=statistics.fmean(one.chosen_by for one in outcomes),
            parameters=outcomes[0].parameters,
            multiply_adds=outcomes[0].multiply_adds,
        )

    def _train(self, genotype: Genotype, seed: int, place: Path) -> _Judged:
        began = time.perf_counter()
        trainer = Trainer(genotype, self.images, **self.settings, seed=seed, device=self.device, out=place, resume=True)
        result = trainer.train()
        return _Judged(
            chosen_by=result.accuracy,
            test=accuracy(result.network, self.whole, self.whole.test, trainer.device, objective=trainer.objective),
            parameters=count_parameters(result.network, auxiliary=False),
            seconds=time.perf_counter() - began,
            multiply_adds=count_multiply_adds(result.network, (self.whole.channels, *self.whole.size)).convolutions,
        )


@dataclass(frozen=True)
class _Judged(Trained):
    multiply_adds: int
