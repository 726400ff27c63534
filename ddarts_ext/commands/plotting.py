"""``ddarts plot``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def plot(
    source: Annotated[
        str,
        typer.Argument(
            metavar="RUN | GENOTYPE",
            help="The folder of a search or a training; or a genotype file, FILE#NAME, or a published name.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the pictures of a run [default: RUN/plots], or file for those of a genotype "
            "[default: NAME.svg]."
        ),
    ] = None,
    format: Annotated[
        str | None, typer.Option(help="svg, pdf or png. [default: png for a run, svg for a genotype]")
    ] = None,
    layout: Annotated[
        str, typer.Option(help="Of a genotype: graphviz, own, or auto for the first of them that is installed.")
    ] = "auto",
) -> None:
    """Draw a run or the cells of an architecture.

    Of a run: accuracy and loss; of a search also the contribution of every cell, alphas and op weights, and what
    shrank; and the cells that were found. Example: ddarts plot DARTS_V2 --format pdf
    """
    from ddarts_ext.plot import plot_run

    if Path(source).is_dir():
        for path in plot_run(source, out, format or "png"):  # type: ignore[arg-type]
            typer.echo(path)
        return
    typer.echo(_genotype(source, out, format, layout))


def _genotype(source: str, out: Path | None, format: str | None, layout: Any) -> Path:
    from ddarts_ext.genotype import Genotype
    from ddarts_ext.plot import plot_genotype

    if len(Path(source).parts) > 1 and "#" not in source and "(" not in source and not Path(source).exists():
        raise FileNotFoundError(f"plot: {source} must be the folder of a run or the file of a genotype, but is neither")
    genotype = Genotype.load(source)
    if out is None:
        out = Path(f"{_name(source)}.{format or 'svg'}")
    elif format is not None and out.suffix.removeprefix(".") != format:
        raise ValueError(f"plot: out must end in .{format}, as --format says, got {out}")
    return plot_genotype(genotype, out, layout)


def _name(source: str) -> str:
    """What a file may be called after: NAME of FILE#NAME, the file, or the published name; else ``genotype``."""
    path, _, member = source.partition("#")
    name = member or Path(path).name.removesuffix(".json")
    known = all(letter.isalnum() or letter in "-_." for letter in name) and 0 < len(name) <= 80
    return name if known and not name.startswith(".") else "genotype"
