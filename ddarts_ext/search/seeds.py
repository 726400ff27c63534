"""Several searches that differ in their seed alone: ``ddarts search --seeds 4``."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ddarts_ext.genotype import Genotype
from ddarts_ext.genotype.start import Start
from ddarts_ext.runs.folder import OF_SEEDS, RunFolder, seed_folder
from ddarts_ext.runs.losses import metric_in, shown
from ddarts_ext.runs.placing import placed
from ddarts_ext.runs.progress import Progress
from ddarts_ext.runs.ranks import current
from ddarts_ext.search.searcher import Searcher
from ddarts_ext.search.settings import MAY_CHANGE

_CHANGEABLE = ("data", *(f"settings.{name.rpartition('.')[2]}" for name in MAY_CHANGE))


@dataclass(frozen=True)
class SeedResult:
    """One of the searches. metric, valid: what the supernet came to on its validation images at the end, None where a
    method judges nothing. seconds: of its epochs."""

    seed: int
    genotype: Genotype
    rule: str
    metric: str | None
    valid: float | None
    higher_is_better: bool
    seconds: float

    def __str__(self) -> str:
        judged = "" if self.metric is None or self.valid is None else f"{shown(self.metric, self.valid, 2)}, "
        return f"seed {self.seed}: {judged}rule {self.rule}, {self.seconds:.0f} s"

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**vars(self), "genotype": self.genotype.to_json()}


@dataclass(frozen=True)
class SeedResults:
    """All of them, in the order of their seeds. best: the one whose supernet is best on the validation images, the
    first of equal ones; that says little of the networks, which ``ddarts compare --protocol best`` trains."""

    results: tuple[SeedResult, ...]

    @property
    def best(self) -> SeedResult:
        return max(self.results, key=_rank)

    def __getitem__(self, seed: int) -> SeedResult:
        for result in self.results:
            if result.seed == seed:
                return result
        raise KeyError(f"seeds are {', '.join(str(result.seed) for result in self.results)}, got {seed}")

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"best": self.best.seed, "results": [result.to_json() for result in self.results]}


def _rank(result: SeedResult) -> float:
    if result.valid is None:
        return float("-inf")
    return result.valid if result.higher_is_better else -result.valid


@dataclass(frozen=True)
class _Searches:
    """What the searches have in common, in a process that runs some of them."""

    data: str
    method: str | None
    settings: Mapping[str, Any]
    out: Path
    progress: Progress | None
    device: str


def _search(seed: int, searches: _Searches) -> SeedResult:
    """For :class:`ddarts_ext.runs.workers.Place`."""
    searcher = Searcher(
        searches.data,
        cast(Any, searches.method),
        **searches.settings,
        seed=seed,
        device=searches.device,
        out=seed_folder(searches.out, seed),
        resume=True,
        progress=searches.progress,
    )
    result = searcher.search()
    last = next((record["valid"] for record in reversed(result.history) if "valid" in record), None)
    metric, valid = (None, None) if last is None else metric_in(last)
    better = searcher.objective.higher_is_better
    return SeedResult(seed, result.genotype, result.rule, metric, valid, better, result.seconds)


def search_seeds(
    data: str | Path = "digits",
    method: str | None = None,
    *,
    seeds: int,
    out: str | Path,
    seed: int = 0,
    resume: bool = False,
    device: str = "auto",
    jobs: int | None = None,
    backend: str = "local",
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda line: None,
    **settings: Any,
) -> SeedResults:
    """Search ``seeds`` times, with the seeds from ``seed`` on: the results are those of as many single searches with
    as many threads.

    out: every search is a run in ``out/seed-<seed>``, with ``seeds.json`` and the best one's ``genotype.json`` beside
    them. resume: continue there, with as many seeds or more, and with what a single search may change. jobs: searches
    at once, each in a process of its own; they share the cores of a CPU, the memory of a GPU, and several GPUs are
    dealt out. backend: as of ``ddarts compare``. progress: of each search, where they run one after the other. say:
    shown one line per search. data, method, settings: those of :class:`Searcher`, as names and plain data.

    Raises ValueError, TypeError or FileNotFoundError for wrong input; then nothing is left behind.
    """
    for name, value, least in (("seeds", seeds, 1), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"search: {name} must be an integer >= {least}, got {value!r}")
    for name, path in (("data", data), ("out", out)):
        if not isinstance(path, (str, Path)):
            raise TypeError(f"search: {name} must be a name or a path with several seeds, got {type(path).__name__}")
    if current().several:
        raise ValueError(f"search: seeds must be left out with {current().world} ranks, got {seeds}")
    tasks = range(seed, seed + seeds)
    for run in (seed_folder(out, number) for number in tasks):
        if run.exists() and not resume:
            raise ValueError(f"search: out must be a new folder, or use --resume, got one with {run}")
    about = {
        "command": OF_SEEDS,
        "data": str(data),
        "method": method,
        "seed": seed,
        "seeds": seeds,
        "settings": {name: _plain(name, value) for name, value in settings.items()},
    }
    folder = RunFolder(out, OF_SEEDS, say)
    with folder.session(), placed(backend, "search", device=device, jobs=jobs, say=say) as place:
        folder.open(about, resume=resume, changeable=_CHANGEABLE, growing=("seeds", "settings.epochs"))
        place.check(folder.path)
        # Refused here, before anything is written. Images are known by what they are, so each run checks its own.
        Searcher(data, cast(Any, method), **settings, seed=seed, device=device, progress=Progress())
        begun = folder.config_file.is_file()
        if not begun:
            folder.begin(about)
        shown_here = progress if place.here(tasks) else None
        begin = functools.partial(_Searches, str(data), method, settings, folder.path, shown_here)
        found: list[SeedResult] = []
        for _, result in place.each(tasks, _search, begin):
            if begun and not found:  # a run has taken what differs from before
                folder.begin(about)
            found.append(result)
            say(f"{len(found)}/{seeds} searched  {result}")
        results = SeedResults(tuple(sorted(found, key=lambda one: one.seed)))
        results.best.genotype.save(folder.genotype_file)
        folder.write_json("seeds.json", results.to_json())
    return results


def _plain(name: str, value: Any) -> Any:
    """A setting as it is written. Raises TypeError where it cannot be."""
    if isinstance(value, (Start, Genotype)):
        return Start.load(value).to_json()
    try:
        return json.loads(json.dumps(value))
    except TypeError:
        raise TypeError(f"search: {name} must be plain data with several seeds, got {type(value).__name__}") from None


def stored(out: str | Path, *, asked: bool = False) -> dict[str, Any] | None:
    """The arguments of the searches in ``out``, None where there are none. Raises ValueError for a damaged folder, and
    for a run of another kind where several seeds were ``asked`` for."""
    folder = RunFolder(out, OF_SEEDS)
    if not folder.config_file.is_file() or (not asked and folder.config().get("command") != OF_SEEDS):
        return None

    def read(config: Mapping[str, Any]) -> dict[str, Any]:
        settings = dict(config["settings"])
        if isinstance(settings.get("start"), dict):
            settings["start"] = Start.from_json(settings["start"])
        own = {name: config[name] for name in ("data", "method", "seed", "seeds")}
        return {**settings, **{name: value for name, value in own.items() if value is not None}}

    return folder.arguments(read)
