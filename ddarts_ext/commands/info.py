"""``ddarts info``"""

from __future__ import annotations

import json

import typer
from rich.console import Console

from ddarts_ext.commands import options


def info(as_json: options.Json = False) -> None:
    """Say what was built for what, and which implementation each op runs on this machine."""
    from ddarts_ext import info as report

    found = report.collect()
    if as_json:
        typer.echo(json.dumps(found))
    else:
        Console().print(report.render(found))
