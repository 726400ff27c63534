"""``ddarts score-ops``"""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from ddarts_ext.commands import options


def score_ops(
    data: options.Images,
    out: Annotated[Path, typer.Option(help="The score file; measurements are kept beside it, in FILE.jsonl.")],
    channels: Annotated[int, typer.Option(help="Channels of the first cell.")] = 64,
    epochs: Annotated[int, typer.Option(help="Epochs of a run.")] = 10,
    runs: Annotated[int, typer.Option(help="Runs of which the best counts.")] = 4,
    batch: Annotated[int, typer.Option(help="Images in a batch.")] = 256,
    lr: Annotated[float, typer.Option(help="Learning rate at the start.")] = 0.025,
    cells: Annotated[int, typer.Option(help="Cells of the network.")] = 3,
    input_node: Annotated[
        int, typer.Option(help="Input that the cells read: 1, the cell before, or 0, the one before that (published).")
    ] = 1,
    ops: Annotated[str | None, typer.Option(help="Ops to score, with commas. [default: all 12]")] = None,
    statistic: Annotated[str, typer.Option(help="Over the edges: median or mean.")] = "median",
    jobs: options.Jobs = None,
    backend: options.Backend = "local",
    seed: Annotated[int, typer.Option(help="Seed of run 0; run i has seed + i.")] = 0,
    device: options.Device = "auto",
    precision: Annotated[str, typer.Option(help="float32, or bf16 for autocast.")] = "float32",
    as_json: options.Json = False,
) -> None:
    """Measure how good every op is by itself, as weights for the distance between architectures (D-DARTS, Table 1).

    Trains a residual network of 3 cells with the op on each of its edges in turn. A run that was killed continues with
    the same command. Example: ddarts score-ops --data digits --channels 8 --epochs 3 --runs 1 --batch 64 --out s.json
    """
    import json

    from ddarts_ext.distance.protocol import Protocol
    from ddarts_ext.distance.score_ops import score_ops as run

    named = {} if ops is None else {"ops": tuple(op.strip() for op in ops.split(",") if op.strip())}
    protocol = Protocol(
        data=data,
        channels=channels,
        epochs=epochs,
        runs=runs,
        batch=batch,
        lr=lr,
        cells=cells,
        input_node=input_node,
        seed=seed,
        precision=precision,
        **named,
    )
    with redirect_stdout(sys.stderr):  # Ray reports to standard output, which is for the result
        found = run(
            protocol,
            out,
            device=device,
            jobs=jobs,
            backend=backend,
            statistic=statistic,
            say=lambda line: typer.echo(line, err=True),
        )
    if as_json:
        typer.echo(json.dumps({"scores": found, "file": str(out)}))
        return
    for op, score in sorted(found.items(), key=lambda item: -item[1]):
        typer.echo(f"{op:<18} {score:.4f}")
    typer.echo(f"scores in {out}")
