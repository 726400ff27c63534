"""``ddarts measure-ops``"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ddarts_ext.commands import options


def measure_ops(
    file: Annotated[Path | None, typer.Argument(help="With --check: a table that was measured before.")] = None,
    data: options.Data = None,
    method: Annotated[str, typer.Option(help="The method that will search, whose sizes count.")] = "ddarts",
    start: Annotated[str | None, typer.Option(help="Network that dartopti starts from, as of ddarts search.")] = None,
    space: Annotated[str | None, typer.Option(help="Search space. [default: the method's]")] = None,
    cells: Annotated[int | None, typer.Option(help="Cells. [default: as the search has]")] = None,
    channels: Annotated[int | None, typer.Option(help="Channels of the first cell. [default: as the search]")] = None,
    image_size: Annotated[int | None, typer.Option(help="Side of the images of a folder.")] = None,
    stem: Annotated[
        str | None, typer.Option(help="cifar, imagenet, imagenet_stride4. [default: as the search]")
    ] = None,
    batch: Annotated[int, typer.Option(help="Images at once.")] = 1,
    device: options.Device = "cpu",
    threads: Annotated[int | None, typer.Option(help="CPU threads. [default: torch's]")] = None,
    seconds: Annotated[float, typer.Option(help="Time for all of it, on a GPU beside that of the captures.")] = 60.0,
    out: Annotated[Path | None, typer.Option(help="The table, as JSON.")] = None,
    check: Annotated[
        int | None,
        typer.Option(help="Compare FILE with the measured latency of so many random architectures."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the random architectures.")] = 1,
    as_json: options.Json = False,
) -> None:
    """Time every op at every place of the networks that a search can find, for --budget latency=... of ddarts search.

    The sizes are those of ddarts search with the same --data, --method, --cells and so on. A latency is that of one
    batch in evaluation. ddarts measure-ops FILE --check 20 says how well the table predicts whole networks.

    Example: ddarts measure-ops --data digits --method ddarts --device cpu --out ops.json
    """
    from ddarts_ext.benchmark.timing import check_seconds
    from ddarts_ext.runs.device import choose_device, set_threads
    from ddarts_ext.runs.files import check_target

    for name, value, least in (("batch", batch, 1), ("seed", seed, 0), ("check", check, 1)):
        if value is not None and value < least:
            raise ValueError(f"measure-ops: {name} must be >= {least}, got {value}")
    check_seconds("measure-ops", seconds)
    if (check is None) == (out is None) or (check is None) != (file is None):
        raise ValueError("measure-ops: --out FILE must be given to measure, or FILE and --check N to compare")
    where = str(choose_device(device, "measure-ops"))
    if threads is not None:
        set_threads(threads, "measure-ops")
    if check is not None and file is not None:
        _check(file, check, where, seconds, seed, as_json)
        return
    assert out is not None
    check_target("measure-ops: out", out)
    given = {
        "start": start,
        "space": space,
        "cells": cells,
        "channels": channels,
        "image_size": image_size,
        "stem": stem,
    }
    _measure(data, method, given, where, batch, seconds, out, as_json)


def _measure(
    data: str | None,
    method: str,
    given: dict[str, Any],
    device: str,
    batch: int,
    seconds: float,
    out: Path,
    as_json: bool,
) -> None:
    from ddarts_ext.benchmark.op_times import measure_ops as measured
    from ddarts_ext.data import load
    from ddarts_ext.search.cost import sizes_of
    from ddarts_ext.search.settings import resolve

    if data is None:
        raise ValueError("measure-ops: --data must be given, as its images and classes have their sizes")
    dataset = load(data, image_size=given["image_size"])
    sizes = sizes_of(resolve(dataset, method, "cpu", given), dataset)
    table = measured(sizes, device, batch=batch, seconds=seconds)
    table.save(out)
    if as_json:
        typer.echo(out.read_text(), nl=False)
        return
    slowest = sorted(table.ops.items(), key=lambda pair: -pair[1].median_ms)[:5]
    for place, time in slowest:
        low, high = time.quartiles_ms
        typer.echo(f"{time.median_ms:9.4f} ms ({low:.4f} to {high:.4f})  {place}")
    typer.echo(
        f"{len(table.ops)} ops, the rest of a network {table.rest_ms:.4f} ms, {table.sizes.cells} cells, "
        f"{table.sizes.channels} channels, batch {batch}, on {table.device.get('gpu', table.device['cpu'])}"
    )
    typer.echo(f"table in {out}")


def _check(file: Path, count: int, device: str, seconds: float, seed: int, as_json: bool) -> None:
    from ddarts_ext.benchmark.op_times import architectures, compared
    from ddarts_ext.costs import LatencyTable

    if count < 3:
        raise ValueError(f"measure-ops: check must be 3 or more architectures, got {count}")
    table = LatencyTable.load(file)
    before = str(table.device.get("device", device))
    if before.partition(":")[0] != device.partition(":")[0]:
        raise ValueError(f"measure-ops: device must be {before}, on which {file} was measured, got {device}")
    found = compared(table, architectures(table.sizes, count, seed), device, seconds=seconds)
    if as_json:
        typer.echo(json.dumps(found.to_json()))
        return
    for predicted, measured in zip(found.predicted_ms, found.measured_ms, strict=True):
        typer.echo(f"predicted {predicted:9.4f} ms   measured {measured:9.4f} ms")
    typer.echo(
        f"correlation {found.correlation:.3f}, of ranks {found.rank_correlation:.3f}, over {count} random "
        f"architectures; mean error {found.mean_error:.1%}"
    )
