"""``ddarts search``"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ddarts_ext.commands import options
from ddarts_ext.runs.losses import SHARES, metric_in, shown
from ddarts_ext.runs.options import Option
from ddarts_ext.search import methods
from ddarts_ext.search.methods.method import SETTINGS
from ddarts_ext.search.perturbation import PERTURBATIONS
from ddarts_ext.search.samplers import SAMPLERS
from ddarts_ext.search.settings import OPTIONS, arguments_of


@options.from_declarations(OPTIONS)
def search(
    data: options.Data = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="darts, fairdarts, ddarts, dartopti, isdarts, da2s, gdas, drnas, snas, reinmax, sdarts-rs, "
            "sdarts-adv, pcdarts, pdarts, darts-pt, oles, beta-darts, darts-es, darts-minus, single-level, random, "
            "evolution; "
            "--list says more. [default: ddarts]"
        ),
    ] = None,
    given: dict[str, Any] = {},  # noqa: B006  # what OPTIONS declare
    off_logit: options.OffLogit = None,
    input_node: options.InputNode = None,
    out: options.Out = None,
    resume: options.Resume = False,
    seeds: Annotated[
        int | None,
        typer.Option(
            help="Search so many times, with the seeds from --seed on, each a run in OUT/seed-<seed>; "
            "OUT/genotype.json is that of the best supernet."
        ),
    ] = None,
    jobs: options.Jobs = None,
    backend: options.Backend = "local",
    device: options.Device = "auto",
    list_methods: Annotated[bool, typer.Option("--list", help="List methods, parts and settings, and stop.")] = False,
) -> None:
    """Search an architecture on images, or a recurrent cell on text; prints it, and writes it to OUT/genotype.json.

    Example: ddarts search --data digits --method ddarts --epochs 10 --seed 0 --out runs/digits
    """
    if list_methods:
        typer.echo(_methods(method or "ddarts"))
        return
    from ddarts_ext.genotype.start import Start
    from ddarts_ext.runs.progress import for_terminal
    from ddarts_ext.runs.ranks import current
    from ddarts_ext.search import Searcher

    said = {
        name: value for name, value in {"data": data, "method": method, "seeds": seeds}.items() if value is not None
    }
    arguments = {**(_stored(out, several=seeds is not None) if resume and out is not None else {}), **said, **given}
    if "start" in arguments:
        arguments["start"] = Start.load(arguments["start"], off_logit, input_node)
    elif off_logit is not None or input_node is not None:
        raise ValueError("search: --start must be given with --off-logit and --input-node")
    if "data" not in arguments:
        if resume and out is not None:
            raise FileNotFoundError(f"search: out must be the folder of a run to resume, or --data given, got {out}")
        raise ValueError(
            "search: --data must be given: digits, cifar10:FOLDER, a .npz file, an image folder, shards:PATTERN or "
            "text:FILE"
        )
    if "seeds" in arguments:
        _several(arguments, out=out, resume=resume, device=device, jobs=jobs, backend=backend)
        return
    if jobs is not None or backend != "local":
        raise ValueError("search: --seeds must be given with --jobs and --backend")
    result = Searcher(**arguments, device=device, out=out, resume=resume, progress=for_terminal()).search()
    if not current().first:
        return
    typer.echo(result.genotype.to_text() if result.genotype.inputs == 1 else result.genotype)
    last = result.history[-1] if result.history else {}
    judged = f", validation {_judged(*metric_in(last['valid']))}" if "valid" in last else ""
    typer.echo(f"rule {result.rule}{judged}")
    if result.cost is not None:
        typer.echo(result.cost)
    if result.budget:
        typer.echo(
            f"best of {result.budget['architectures']} architectures, {result.budget['training_epochs']} epochs of "
            f"training, {result.budget['seconds']:.1f} s"
        )
    if result.figures is not None:
        typer.echo(result.figures)
    if "distance" in last:
        settled = ", settled" if last["distance"].get("settled") else ""
        typer.echo(f"distance to the start {last['distance']['start']:.6f} after {last['epoch'] + 1} epochs{settled}")
    if out is not None:
        typer.echo(f"genotype in {out / 'genotype.json'}")


def _several(arguments: dict[str, Any], *, out: Path | None, **how: Any) -> None:
    from ddarts_ext.runs.folder import seed_folder
    from ddarts_ext.runs.progress import for_terminal
    from ddarts_ext.search.seeds import search_seeds

    if out is None:
        raise ValueError("search: --out must be given with --seeds")
    found = search_seeds(
        **arguments, out=out, **how, progress=for_terminal(), say=lambda line: typer.echo(line, err=True)
    )
    for result in found.results:
        typer.echo(result)
    best = found.best
    typer.echo(best.genotype.to_text() if best.genotype.inputs == 1 else best.genotype)
    typer.echo(f"seed {best.seed} has the best supernet; its genotype in {out / 'genotype.json'}")
    typer.echo(f"all runs in {seed_folder(out, found.results[0].seed)} and so on, figures in {out / 'seeds.json'}")


def _judged(name: str, value: float) -> str:
    return shown(f"{name} of the supernet", value, 2) if name not in SHARES else f"{name} of the supernet {value:.2%}"


def _stored(out: Path, *, several: bool) -> dict[str, Any]:
    """Arguments of the run, or of the runs, in ``out``, as far as they have begun."""
    from ddarts_ext.runs.folder import RunFolder
    from ddarts_ext.search.seeds import stored

    of_seeds = stored(out, asked=several)
    if of_seeds is not None:
        return of_seeds

    folder = RunFolder(out, "search")
    return folder.arguments(arguments_of) if folder.config_file.exists() else {}


def _methods(name: str) -> str:
    lines = ["methods:"]
    for method in (*methods.METHODS.values(), *(m for (_, space), m in methods.IN_SPACE.items() if space == "rnn")):
        lines += [
            f"  {method.name}{' (on text)' if method.text is not None else ''}: {method.summary}",
            f"      space {method.space}, {method.relaxation} weights{_mixed(method)},"
            f" cells {method.sharing.replace('_', '/')},"
            f" {method.epochs} epochs, {method.cells} cells, {method.channels} channels, batch {method.batch}",
            f"      from {method.source}",
        ]
    lines += ["parts for --set, with every method that they go together with:", *map("  ".__add__, _parts())]
    shown = methods.get(name)
    lines.append(f"settings for --set, with the values of {shown.name}:")
    for known in OPTIONS.values():
        if known.home[:-1] == ("method",):
            lines.append(f"  {known.name}={getattr(shown, known.name)}")
        elif known.home[0] != "method" and known.name != "augmentation":
            lines.append(f"  {known.name}={known.shown or json.dumps(known.default)}{_choices(known)}")
    for subject, settings in SETTINGS.items():
        values = getattr(shown, subject)
        if values is None:
            lines.append("on text:" if subject == "text" else "of methods that shrink (isdarts):")
        for known in settings.values():
            value = known.default if values is None else getattr(values, known.name)
            lines.append(f"  {known.name}={value if isinstance(value, str) else json.dumps(value)}{_choices(known)}")
    return "\n".join(lines)


def _choices(known: Option) -> str:
    return f"   ({' | '.join(known.choices)})" if known.choices else ""


def _mixed(method: methods.Method) -> str:
    """What a method does to op weights, in words."""
    how = method.mixing
    said = {
        f" drawn by {how.sampler}": how.sampler != "none",
        " with an auxiliary skip": how.auxiliary_skip > 0,
        f" perturbed ({how.perturbation})": how.perturbation != "none",
        f" on 1/{how.partial_channels} of the channels": how.partial_channels > 1,
        " with normalised edges": how.edge_normalisation,
    }
    return "".join(words for words, holds in said.items() if holds)


def _parts() -> list[str]:
    samplers = [f"sampler={name}: {known.summary} ({known.source})" for name, known in SAMPLERS.items()]
    perturbations = [f"perturbation={name}: {summary} (2002.05283)" for name, summary in PERTURBATIONS.items()]
    return [
        *samplers,
        *perturbations,
        "partial_channels=4: ops see a quarter of the channels, the others pass them by (1907.05737)",
        "edge_normalisation=true: the edges into a node are weighted by a softmax (1907.05737)",
        "auxiliary_skip=1: a skip connection beside the ops of every edge, whose weight falls to 0 (2009.01027)",
        "beta_decay_weight=50: ln sum exp of the alphas of an edge is added to the loss of the alphas (2203.01665)",
        "anchor_weight=0.001: the distance of the Dirichlet distributions from the uniform one is added (2006.10355)",
        "alpha_images=training: alphas move by the batches of the weights, a single level (1806.09055)",
        "op_entropy_weight=0.1, edge_entropy_weight=0.4 (with edge weights): ops and edges must decide (2007.03154)",
        "zero_one_weight=10: sigmoid weights are driven to 0 or 1 (1911.12126)",
        "ablation_weight=0.5: cells are rewarded for what they add (2108.09306)",
        "order=2: the gradient at weights that are unrolled by one step (1806.09055)",
        "curvature_stop=true: the search ends when the loss around the alphas is too curved (1909.09656)",
        "selection=perturbation: what stays is what the trained supernet misses most (2108.04392)",
        "stage_cells=[0,6,12] with stage_ops=[5,3]: stages of more cells and fewer ops on an edge (1904.12760)",
        "skip_dropout=[0.3], one rate for each stage: skip connections are dropped out in training (1904.12760)",
        "max_skips=2: so many skip connections may stay in normal cells (1904.12760)",
        "op_stop=true: an op stops training when its gradients on both halves of the images differ (OLES)",
        "budget=params=2M, or macs=300M, latency=5ms: the cost of the architecture is held to it (docs/budget.md)",
        "early_stop=true: the search ends when the distance to its start has settled (2108.09306)",
    ]
