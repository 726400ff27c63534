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
    compiled: Annotated[bool, typer.Option("--compiled", help="Also time the reference under torch.compile.")] = False,
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

        if ops or compiled:
            raise ValueError("bench: --module must stand without ops and --compiled, got both")
        run_module(module, device=device, threads=threads, seconds=seconds, output=output, show=console.print)
        return
    benchmark.run(
        ops or None,
        device=device,
        threads=threads,
        seconds=seconds,
        compiled=compiled,
        output=output,
        show=console.print,
    )
