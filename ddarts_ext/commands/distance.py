"""``ddarts distance``"""

from __future__ import annotations

import json
from os.path import isfile, join
from pathlib import Path
from typing import Annotated, Any

import typer

from ddarts_ext.commands import options


def distance(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="A B | A B C ... | RUN ...",
            help="Two architectures; any number with --matrix; finished searches with --runs. An architecture is a "
            "genotype file, FILE#NAME, the folder of a search, or a published name.",
        ),
    ],
    matrix: Annotated[bool, typer.Option("--matrix", help="The distances of all pairs.")] = False,
    runs: Annotated[
        bool,
        typer.Option(
            "--runs", help="From start to result of several searches: mean, largest, correlation with the gain."
        ),
    ] = False,
    gains: Annotated[
        str | None,
        typer.Option(
            help="With --runs, gain in accuracy per run, with commas. [default: validation accuracy of the supernet at "
            "the end less that after pre-training]"
        ),
    ] = None,
    rule: Annotated[
        str | None,
        typer.Option(help="With --runs, the results by this rule, edge or sparse. [default: as the search chose]"),
    ] = None,
    scores: Annotated[
        str, typer.Option(help="Scores of the ops: median (the paper's table), mean, or a score file.")
    ] = "median",
    over: Annotated[str, typer.Option(help="Compare all cells (seq) or the distinct ones (genes).")] = "seq",
    pad_with: Annotated[
        float | None, typer.Option(help="Distance of a cell that one of them lacks. [default: such cells do not count]")
    ] = None,
    positional: Annotated[
        bool, typer.Option("--positional", help="Compare edge by edge: a true metric, for equal numbers of cells.")
    ] = False,
    picture: Annotated[
        Path | None, typer.Option("--plot", help="With --matrix a heat map, with --runs gain over distance.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Distance between architectures (D-DARTS, section 3.5): 0 means the same set of edges in every cell."""
    how: dict[str, Any] = {"scores": scores, "over": over, "pad_with": pad_with, "positional": positional}
    if matrix and runs:
        raise ValueError("distance: one of --matrix and --runs must be given, got both")
    for option, value in (("--gains", gains), ("--rule", rule)):
        if value is not None and not runs:
            raise ValueError(f"distance: {option} must come with --runs")
    if runs:
        how["rule"] = rule
        _runs(sources, None if gains is None else _numbers(gains), how, picture, as_json)
    elif matrix:
        _matrix(sources, how, picture, as_json)
    else:
        _pair(sources, how, picture, as_json)


def _pair(sources: list[str], how: dict[str, Any], picture: Path | None, as_json: bool) -> None:
    from ddarts_ext.distance import architecture_distance
    from ddarts_ext.genotype import Genotype

    if len(sources) != 2:
        raise ValueError(f"distance: architectures must be two, or any number with --matrix, got {len(sources)}")
    if picture is not None:
        raise ValueError("distance: --plot must come with --matrix or --runs")
    a, b = sources
    value = architecture_distance(Genotype.load(a), Genotype.load(b), **how)
    typer.echo(json.dumps({"a": a, "b": b, "distance": value}) if as_json else f"{value:.6f}")


def _matrix(sources: list[str], how: dict[str, Any], picture: Path | None, as_json: bool) -> None:
    from ddarts_ext.distance import distance_matrix
    from ddarts_ext.genotype import Genotype

    sources, left_out = _finished(sources)
    for source in left_out:
        typer.echo(f"distance: {source} is left out, as its search is not finished", err=True)
    if not sources:
        raise ValueError(f"distance: architectures must be finished, one or more, got {len(left_out)} that are not")
    values = distance_matrix([Genotype.load(source) for source in sources], **how)
    names = [_name(source) for source in sources]
    if picture is not None:
        from ddarts_ext.plot.distance import plot_matrix

        plot_matrix(values, names, picture)
    if as_json:
        typer.echo(json.dumps({"names": sources, "distances": values.tolist()}))
        return
    width = max(8, *map(len, names))
    typer.echo(" ".join(["".ljust(width), *(name.rjust(width) for name in names)]))
    for name, row in zip(names, values, strict=True):
        typer.echo(" ".join([name.ljust(width), *(f"{value:.6f}".rjust(width) for value in row)]))
    if picture is not None:
        typer.echo(f"heat map in {picture}")


def _finished(sources: list[str]) -> tuple[list[str], list[str]]:
    """Those that have a genotype, and the folders of runs that have none yet."""
    unfinished = [
        source
        for source in sources
        if isfile(join(source, "config.json")) and not isfile(join(source, "genotype.json"))
    ]
    return [source for source in sources if source not in unfinished], unfinished


def _name(source: str) -> str:
    """What a person calls it: NAME of FILE#NAME, else the last part of the path."""
    path, _, member = source.partition("#")
    return member or Path(path).name.removesuffix(".json")


def _runs(
    sources: list[str], gains: list[float] | None, how: dict[str, Any], picture: Path | None, as_json: bool
) -> None:
    from ddarts_ext.distance.runs import run_distances

    measurable = [source for source in sources if _has_start_and_result(source)]
    if gains is None and measurable:
        for source in sources:
            if source not in measurable:
                typer.echo(f"distance: {source} is left out, as it is no finished search with a start", err=True)
        sources = measurable
    found = run_distances(sources, gains, **how)
    if picture is not None:
        from ddarts_ext.plot.distance import plot_runs

        plot_runs(found, picture)
    typer.echo(json.dumps(found.to_json()) if as_json else str(found))


def _has_start_and_result(source: str) -> bool:
    """Whether it is what ``--runs`` takes; a folder that holds something else is left out among others."""
    from ddarts_ext.runs.folder import RunFolder

    if not isfile(join(source, "config.json")):
        return True  # no run at all: an error that says so
    config = RunFolder(source, "distance").config()
    searched = config.get("command", "search") == "search" and config.get("start") is not None
    return searched and isfile(join(source, "genotype.json"))


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ValueError(f"distance: --gains must be numbers with commas between them, got {text!r}") from error
