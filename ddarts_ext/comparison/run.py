"""``compare``: search, train and judge all contenders of a plan alike."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ddarts_ext.comparison.plan import Contender, Plan, Search, Training
from ddarts_ext.comparison.work import Bench, Searched, Trained, search_work, train_work
from ddarts_ext.runs.folder import RunFolder
from ddarts_ext.runs.placing import placed


@dataclass(frozen=True)
class Line:
    """One contender. Accuracies are of trained results on the test images.

    mean, error: over the searches, each the mean of its trainings; error is the standard error of that mean, deviation
    the standard deviation between searches; None of a single one. best: of the result that is best on the held-out
    training images. parameters, seconds, memory_mib: of a network, a search, a search; means. rules: which rule read
    the results.
    """

    label: str
    searches: int
    trainings: int
    mean: float
    error: float | None
    deviation: float | None
    best: float
    held_out: float
    parameters: float
    seconds: float
    memory_mib: float
    rules: dict[str, int]


@dataclass(frozen=True)
class Comparison:
    """The outcome. correlation: of the supernet's last validation accuracy and the accuracy after training (Pearson
    and Kendall, over all searches that have both; None where there are fewer than three that differ). curves: per
    contender the supernet's validation accuracy over epochs, of every search. points: what the correlation is over."""

    plan: Plan
    lines: tuple[Line, ...]
    correlation: dict[str, float] | None
    curves: dict[str, list[list[float]]]
    points: dict[str, list[list[float]]]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "plan": self.plan.to_json(),
            "lines": [asdict(line) for line in self.lines],
            "correlation": self.correlation,
            "curves": self.curves,
            "points": self.points,
        }

    def __getitem__(self, label: str) -> Line:
        return next(line for line in self.lines if line.label == label)


def compare(
    data: str | Path,
    contenders: Sequence[str | Contender],
    *,
    out: str | Path,
    resume: bool = False,
    device: str = "auto",
    jobs: int | None = None,
    backend: str = "local",
    say: Callable[[str], None] = lambda line: None,
    **how: Any,
) -> Comparison:
    """Search with every contender and several seeds, train what was found by one recipe, judge once on test images.

    contenders: names of methods, ``NAME:SETTING=VALUE,...`` or :class:`Contender`. out: the folder of the comparison;
    every search and every training is a run in it. resume: continue there. jobs: tasks at work at once, each in a
    process of its own. backend: ``local``, processes of this machine, or ``ray``, those of a Ray cluster, all of whose
    machines must see ``out`` and the data. say: shown one line per search and per training. how: fields of
    :class:`Plan`: seeds, random, search, train, train_seeds, holdout, protocol, short_epochs, seed.

    Raises ValueError, TypeError or OSError for wrong input.
    """
    chosen = tuple(one if isinstance(one, Contender) else Contender.parse(one) for one in contenders)
    plan = Plan(str(data), chosen, **how)
    folder = RunFolder(out, "compare")
    with folder.session(), placed(backend, "compare", device=device, jobs=jobs, say=say) as place:
        folder.open(plan.to_json(), resume=resume)
        place.check(folder.path)
        folder.begin(plan.to_json())
        begin = functools.partial(Bench.of, plan.to_json(), str(folder.path))
        run = functools.partial(place.each, begin=begin)
        searched: dict[Search, Searched] = {}
        for search, found in run(plan.searches(), search_work):
            searched[search] = found
            label = plan.all[search.contender].label
            say(f"{len(searched)}/{len(plan.searches())} searched  {label}, seed {search.seed}: {found.seconds:.0f} s")
        chosen_searches = tuple(searched)
        if plan.protocol == "best":
            short = dict(run(plan.trainings(searched, short=True), train_work))
            chosen_searches = _best(plan, short)
            say(f"trained {len(short)} results for {plan.short_epochs} epochs; the best of each goes on")
        trained: dict[Training, Trained] = {}
        tasks = plan.trainings(chosen_searches)
        for training, outcome in run(tasks, train_work):
            trained[training] = outcome
            label = plan.all[training.search.contender].label
            say(
                f"{len(trained)}/{len(tasks)} trained  {label}, seed {training.search.seed}: held out "
                f"{outcome.chosen_by:.2%}"
            )
        result = _judged(plan, searched, trained)
        folder.write_json("comparison.json", result.to_json())
    return result


def _best(plan: Plan, short: Mapping[Training, Trained]) -> tuple[Search, ...]:
    """Of each contender the search whose short training is best on the held-out images; the earlier of equal ones."""
    found: dict[int, Training] = {}
    for training in sorted(short):
        held = found.get(training.search.contender)
        if held is None or short[training].chosen_by > short[held].chosen_by:
            found[training.search.contender] = training
    return tuple(training.search for training in found.values())


def _judged(plan: Plan, searched: Mapping[Search, Searched], trained: Mapping[Training, Trained]) -> Comparison:
    lines, curves, points = [], {}, {}
    for number, contender in enumerate(plan.all):
        searches = sorted(search for search in searched if search.contender == number)
        lines.append(_line(contender.label, searches, searched, trained))
        curves[contender.label] = [searched[search].valid for search in searches if searched[search].valid]
        points[contender.label] = [
            [searched[search].valid[-1], statistics.fmean(one.test for one in _of(search, trained))]
            for search in searches
            if searched[search].valid and _of(search, trained)
        ]
    return Comparison(plan, tuple(lines), _correlation([p for own in points.values() for p in own]), curves, points)


def _of(search: Search, trained: Mapping[Training, Trained]) -> list[Trained]:
    return [outcome for training, outcome in trained.items() if training.search == search]


def _line(
    label: str, searches: Sequence[Search], searched: Mapping[Search, Searched], trained: Mapping[Training, Trained]
) -> Line:
    outcomes = {search: _of(search, trained) for search in searches}
    outcomes = {search: own for search, own in outcomes.items() if own}
    means = [statistics.fmean(one.test for one in own) for own in outcomes.values()]
    held = [statistics.fmean(one.chosen_by for one in own) for own in outcomes.values()]
    deviation = statistics.stdev(means) if len(means) > 1 else None
    rules = [searched[search].rule for search in searches]
    return Line(
        label=label,
        searches=len(searches),
        trainings=sum(map(len, outcomes.values())),
        mean=statistics.fmean(means),
        error=None if deviation is None else deviation / math.sqrt(len(means)),
        deviation=deviation,
        best=means[held.index(max(held))],
        held_out=statistics.fmean(held),
        parameters=statistics.fmean(one.parameters for own in outcomes.values() for one in own),
        seconds=statistics.fmean(searched[search].seconds for search in searches),
        memory_mib=statistics.fmean(searched[search].memory_mib for search in searches),
        rules={rule: rules.count(rule) for rule in dict.fromkeys(rules)},
    )


def _correlation(points: Sequence[Sequence[float]]) -> dict[str, float] | None:
    if len(points) < 3 or any(len({point[axis] for point in points}) < 2 for axis in (0, 1)):
        return None
    from scipy.stats import kendalltau, pearsonr

    before, after = zip(*points, strict=True)
    return {
        "pearson": float(pearsonr(before, after).statistic),
        "kendall": float(kendalltau(before, after).statistic),
        "searches": len(points),
    }
