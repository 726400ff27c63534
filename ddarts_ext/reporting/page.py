"""``report``: runs as one HTML file, without scripts, links to elsewhere or further files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ddarts_ext.distance import distance_matrix
from ddarts_ext.drawing import to_svg
from ddarts_ext.genotype import Genotype
from ddarts_ext.genotype.pictures import cell_drawings
from ddarts_ext.info import version
from ddarts_ext.plot.comparison import comparison_figures
from ddarts_ext.plot.run import run_figures
from ddarts_ext.reporting.curves import draw_scores, draw_together
from ddarts_ext.reporting.pictures import Pictures
from ddarts_ext.reporting.sources import Judged, OpScores, Run, read_sources
from ddarts_ext.reporting.tables import overview, settings
from ddarts_ext.runs.files import check_target, write_whole

_SUBJECTS = {
    "accuracy": "Accuracy and loss",
    "contributions": "Marginal contributions of the cells",
    "weights": "Op weights after the last epoch",
    "edges": "Edges over epochs",
    "alphas": "Alphas over epochs",
    "decisions": "Decisions",
    "distance": "Distance over epochs",
    "scores": "Measure of the ops, and shrinking",
    "samples": "Measure over the number of samples",
}
_MOST_CELLS = 60
"""Different cells of one run that are drawn."""


@dataclass(frozen=True)
class Part:
    """What one run has of a subject: pictures, and what kept some from being drawn."""

    name: str
    pictures: list[Markup] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Section:
    """A heading and its parts, one per run."""

    key: str
    title: str
    parts: list[Part]


def report(runs: str | Path | Sequence[str | Path], out: str | Path = "report.html") -> Path:
    """Write one HTML file of runs, side by side: the folders of searches and trainings, finished or not; files of op
    scores; folders of comparisons. Returns its path.

    The file needs nothing else, runs no script and asks no network. Whatever stands in the files of a run is shown as
    text. What cannot be drawn of a run is a note in its place. Raises ValueError, TypeError or OSError for what is no
    run, and ValueError without matplotlib.
    """
    check_target("report: out", Path(out))
    if Path(out).suffix.lower() in (".json", ".jsonl", ".pt", ".safetensors"):
        raise ValueError(f"report: out must be an HTML file, which no file of a run is, got {out}")
    sources = read_sources([runs] if isinstance(runs, (str, Path)) else list(runs))
    own = [source for source in sources if isinstance(source, Run)]
    pictures = Pictures()
    sections = [*_of_runs(own, pictures), *_of_others(sources, pictures)]
    differ, same = settings(own) if own else ([], [])
    names = [source.name for source in sources]
    page = _template().render(
        title=names[0] if len(names) == 1 else f"{len(names)} runs",
        names=names,
        runs=[run.name for run in own],
        overview=overview(own) if own else [],
        notes=[(run.name, note) for run in own for note in run.notes],
        sections=sections,
        distances=_distances(own),
        differ=differ,
        same=same,
        judged=[source for source in sources if isinstance(source, Judged)],
        version=version(),
    )
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, page.encode("utf-8", errors="replace"))
    return path


def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
                                     lstrip_blocks=True)  # fmt: skip
    text = resources.files(__package__).joinpath("page.html.j2").read_text(encoding="utf-8")
    return environment.from_string(text)


def _of_runs(runs: Sequence[Run], pictures: Pictures) -> list[Section]:
    sections: dict[str, Section] = {}
    judged = [run for run in runs if run.history]
    if len(judged) > 1:
        part = Part("")
        _add(part, lambda: pictures.svg(lambda pyplot: draw_together(pyplot, judged)))
        sections["together"] = Section("together", "All runs together", [part])
    cells = [_cells(run) for run in runs if run.genotype is not None]
    if cells:
        sections["cells"] = Section("cells", "Cells", cells)
    drawn = [(run, _figures(run)) for run in runs]
    for subject, title in _SUBJECTS.items():
        if subject == "accuracy" and "together" in sections:
            continue
        found = [_subject(run, subject, figures, pictures) for run, figures in drawn]
        if any(found):
            sections[subject] = Section(subject, title, [part for part in found if part is not None])
    return list(sections.values())


def _figures(run: Run) -> dict[str, Callable[[Any], None]] | str:
    """What there is to draw; a text where the run's files say something else than runs do."""
    try:
        return dict(run_figures(run.config, run.history))
    except _STRANGE as error:
        return _said(error)


_STRANGE = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, ZeroDivisionError)
"""What comes of files that are not as this package writes them."""


def _subject(
    run: Run, subject: str, figures: dict[str, Callable[[Any], None]] | str, pictures: Pictures
) -> Part | None:
    part = Part(run.name)
    if isinstance(figures, str):
        if subject != "accuracy":
            return None
        part.notes.append(figures)
        return part
    for name, draw in figures.items():
        if name.partition("-")[0] == subject:
            _add(part, lambda draw=draw: pictures.svg(draw))  # type: ignore[misc]
    return part if part.pictures or part.notes else None


def _cells(run: Run) -> Part:
    part, genotype = Part(run.name), run.genotype

    def draw() -> list[Markup]:
        if genotype is None or len(set(genotype.seq)) > _MOST_CELLS:
            raise ValueError(f"at most {_MOST_CELLS} different cells are drawn")
        return [Markup(to_svg(drawing, "a cell")) for drawing in cell_drawings(genotype)]

    try:
        part.pictures.extend(draw())
    except _STRANGE as error:
        part.notes.append(_said(error))
    return part


def _of_others(sources: Sequence[object], pictures: Pictures) -> list[Section]:
    sections = []
    scores = [source for source in sources if isinstance(source, OpScores)]
    if scores:
        parts = [Part(found.name, notes=[str(found.about.get("about", ""))[:300]]) for found in scores]
        for part, found in zip(parts, scores, strict=True):
            _add(part, lambda found=found: pictures.svg(lambda pyplot: draw_scores(pyplot, found)))  # type: ignore[misc]
        sections.append(Section("op-scores", "Op scores", parts))
    parts = []
    for source in sources:
        if isinstance(source, Judged):
            parts.append(Part(source.name))
            try:
                figures = comparison_figures(source.found)
            except _STRANGE as error:
                parts[-1].notes.append(_said(error))
                continue
            for draw in figures.values():
                _add(parts[-1], lambda draw=draw: pictures.svg(draw))  # type: ignore[misc]
    return [*sections, *([Section("comparison", "Comparison", parts)] if parts else [])]


def _add(part: Part, draw: Callable[[], Markup]) -> None:
    try:
        part.pictures.append(draw())
    except _STRANGE as error:
        part.notes.append(_said(error))


def _said(error: Exception) -> str:
    text = " ".join(str(error).split())[:200]
    return f"not drawn: {type(error).__name__}: {text}"


def _distances(runs: Sequence[Run]) -> dict[str, Any] | None:
    """The distances of all pairs, each with how dark it is; a note for runs whose ops have no scores."""
    known: list[tuple[str, Genotype]] = []
    notes = []
    for run in runs:
        if run.genotype is None:
            continue
        try:
            distance_matrix([run.genotype])
        except (ValueError, TypeError) as error:
            notes.append(f"{run.name}: {_said(error).replace('drawn', 'measured')}")
        else:
            known.append((run.name, run.genotype))
    if len(known) < 2:
        return {"names": [], "rows": [], "notes": notes} if notes and len(known) + len(notes) > 1 else None
    names = [name for name, _ in known]
    values = distance_matrix([genotype for _, genotype in known])
    largest = float(values.max()) or 1.0
    rows = [[(f"{value:.4f}", round(0.45 * value / largest, 3)) for value in row] for row in values.tolist()]
    return {"names": names, "rows": list(zip(names, rows, strict=True)), "notes": notes}
