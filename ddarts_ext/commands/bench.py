"""``ddarts bench``"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer


def bench(
    ops: Annotated[list[str] | None, typer.Argument(help="Ops to time, or launches. [default: all]")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int | None, typer.Option(help="CPU threads. [default: torch's]")] = None,
    seconds: Annotated[float, typer.Option(help="Time for each figure.")] = 1.0,
    compiled: Annotated[
        str | None,
        typer.Option(help="Also time the reference under torch.compile in cases with this in their name, or in 'all'."),
    ] = None,
    limit: Annotated[
        float | None, typer.Option(help="Begin no case after so many seconds; the ops then take turns.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Write the figures as JSON.")] = None,
    module: Annotated[
        str | None,
        typer.Option(help="path.py:make_model: time your own model, as returned with its inputs, before and after."),
    ] = None,
) -> None:
    """Time the ops against plain torch, after checking that both give the same values and gradients.

    ddarts bench launches counts instead, without a GPU, the kernels that each kind of step of a search launches on one.
    """
    from rich.console import Console

    from ddarts_ext import benchmark

    console = Console()
    if module is not None:
        from ddarts_ext.acceleration.bench_module import run_module

        if ops or compiled is not None or limit is not None:
            raise ValueError("bench: --module must stand without ops, --compiled and --limit, got both")
        run_module(module, device=device, threads=threads, seconds=seconds, output=output, show=console.print)
        return
    if "launches" in (ops or ()):
        if ops != ["launches"] or compiled is not None or limit is not None:
            raise ValueError(f"bench: launches must stand alone or with --output, got {' '.join(ops or ())}")
        _launches(console, output)
        return
    report = benchmark.run(
        ops or None,
        device=device,
        threads=threads,
        seconds=seconds,
        compiled=compiled,
        limit=limit,
        output=output,
        show=console.print,
    )
    if report.failures:
        raise typer.Exit(1)


def _launches(console: Any, output: Path | None) -> None:
    from ddarts_ext.benchmark import launches
    from ddarts_ext.runs.files import check_target, write_whole

    if output is not None:
        check_target("bench: output", output)
    sizes = launches.Sizes()
    title = f"{sizes.cells} cells, {sizes.channels} channels, batch {sizes.batch}, float32"
    rows = list(launches.launch_rows(launches.counts(sizes)))
    console.print(launches.launch_table(rows, title))
    for row in rows:
        for fault, times in row.faults.items():
            console.print(f"{row.step}: {fault} ({times} times)")
    if output is not None:
        found = {"sizes": asdict(sizes), "steps": [asdict(row) for row in rows]}
        output.parent.mkdir(parents=True, exist_ok=True)
        write_whole(output, (json.dumps(found, indent=1) + "\n").encode())
    if any(row.faults for row in rows):
        raise typer.Exit(1)
