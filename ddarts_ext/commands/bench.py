"""``ddarts bench``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def bench(
    ops: Annotated[list[str] | None, typer.Argument(help="Ops to time. [default: all]")] = None,
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
    """Time the ops against plain torch, after checking that both give the same values and gradients."""
    from rich.console import Console

    from ddarts_ext import benchmark

    console = Console()
    if module is not None:
        from ddarts_ext.acceleration.bench_module import run_module

        if ops or compiled is not None or limit is not None:
            raise ValueError("bench: --module must stand without ops, --compiled and --limit, got both")
        run_module(module, device=device, threads=threads, seconds=seconds, output=output, show=console.print)
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
