"""``ddarts train``"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ddarts_ext.commands import options
from ddarts_ext.data.text import is_text
from ddarts_ext.training.config import OPTIONS
from ddarts_ext.training.text.config import OPTIONS as TEXT_OPTIONS


@options.from_declarations({**TEXT_OPTIONS, **OPTIONS})
def train(
    genotype: Annotated[
        str | None,
        typer.Argument(
            help="A genotype file, FILE#NAME, the folder of a search, or the name of a published architecture."
        ),
    ] = None,
    data: options.Data = None,
    out: options.Out = None,
    given: dict[str, Any] = {},  # noqa: B006  # what OPTIONS declare
    cells: Annotated[
        int | None,
        typer.Option(
            help="Derive a network of so many cells first. [default: of a search, the published depth of the recipe]"
        ),
    ] = None,
    resume: options.Resume = False,
    device: options.Device = "auto",
    list_settings: Annotated[bool, typer.Option("--list", help="List recipes and settings, and stop.")] = False,
) -> None:
    """Train the network of a genotype; prints its accuracy on held-out images and writes OUT/weights.safetensors.

    On text (--data text:PATH) it is a language model, and its perplexity is printed.

    Example: ddarts train runs/digits --data digits --out runs/digits-net
    """
    if list_settings:
        typer.echo(_settings())
        return
    from ddarts_ext.runs.losses import shown
    from ddarts_ext.runs.progress import for_terminal
    from ddarts_ext.runs.ranks import current
    from ddarts_ext.training.trainer import Trainer
    from ddarts_ext.training.weights import WEIGHTS

    said = {} if data is None else {"data": data}
    arguments = {**(_stored(out) if resume and out is not None else {}), **said, **given}
    if "held_back" in given and arguments.get("keep", "last") == "last" and "holdout" not in arguments:
        raise ValueError("train: --keep best must be given with --held-back, got last")
    if genotype is not None:
        arguments["genotype"] = genotype
    for name in ("genotype", "data"):
        if name not in arguments:
            raise ValueError(f"train: {name} must be given")
    result: Any = Trainer(
        **arguments, cells=cells, device=device, out=out, resume=resume, progress=for_terminal()
    ).train()
    if not current().first:
        return
    if is_text(arguments["data"]):
        typer.echo(f"perplexity {result.perplexity:.2f} on the test text, with the best weights by the validation text")
        if out is not None:
            typer.echo(f"weights in {out / WEIGHTS['last']}")
        return
    top5 = result.history[-1]["test"].get("top5")
    judged = shown(result.metric, result.accuracy, 2)
    typer.echo(f"held-out {judged}" + ("" if top5 is None else f", top-5 {top5:.2%}"))
    if result.best is not None and result.best_accuracy is not None:
        best = shown(result.metric, result.best_accuracy, 2)
        typer.echo(f"best epoch {result.best.epoch} by images held back, held-out {best}")
    if out is not None:
        best = f", the best ones in {out / WEIGHTS['best']}" if result.best is not None else ""
        typer.echo(f"weights in {out / WEIGHTS['last']}{best}")


def _settings() -> str:
    from ddarts_ext.training.recipe_table import RECIPES

    lines = ["recipes for --recipe:"]
    for name, recipe in RECIPES.items():
        lines.append(f"  {name}: {'; '.join(numbers.source for numbers in recipe.numbers)}")
    lines.append("settings for --set, with the values that they have where no recipe sets them:")
    for known in OPTIONS.values():
        choices = f"   ({' | '.join(known.choices)})" if known.choices else ""
        lines.append(f"  {known.name}={known.shown or json.dumps(known.default)}{choices}")
    return "\n".join(lines)


def _stored(out: Path) -> dict[str, Any]:
    """Arguments of the run in ``out``, as far as it has begun."""
    from ddarts_ext.runs.folder import RunFolder
    from ddarts_ext.training.text.trainer import arguments_of as of_text
    from ddarts_ext.training.trainer import arguments_of as of_images

    def arguments(config: dict[str, Any]) -> dict[str, Any]:
        return (of_text if config.get("kind") == "text" else of_images)(config)

    folder = RunFolder(out, "train")
    return folder.arguments(arguments) if folder.config_file.exists() else {}
