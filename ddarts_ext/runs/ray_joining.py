"""Which Ray cluster a program becomes a part of."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

_ANSWER_SECONDS = 10


def ray_module(command: str) -> Any:
    """The package ray. Raises ValueError where it is not installed."""
    try:
        import ray
        import ray.exceptions
        import ray.util.scheduling_strategies
    except ImportError as error:
        raise ValueError(
            f"{command}: backend ray needs the package ray (pip install 'ddarts_ext[ray]'): {error}"
        ) from error
    return ray


def join(ray: Any, command: str, say: Callable[[str], None]) -> None:
    """Make this program a part of the cluster of :func:`address_of`, or of a new one. Raises ConnectionError."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster that is started here reports to nobody
    quiet = {"logging_level": "critical", "log_to_driver": False}
    address = address_of(command)
    try:
        if address is None:
            # Not whatever runs here: another program may have started it for itself, and will end it.
            ray.init(address="local", include_dashboard=False, **quiet)
            say(f"{command}: no Ray cluster runs here, one was started on this machine")
        else:
            ray.init(address=address, **quiet)
    except (RuntimeError, ConnectionError) as error:
        where = "started on this machine" if address is None else f"joined at {address}"
        reason = " ".join(str(error).split())
        raise ConnectionError(f"{command}: no Ray cluster could be {where}: {reason}") from error


def address_of(command: str) -> str | None:
    """Where a cluster answers: RAY_ADDRESS, else that which ``ray start`` made this machine a part of, if any."""
    said = os.environ.get("RAY_ADDRESS", "")
    file = Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp", "ray", "ray_current_cluster")
    with suppress(OSError):
        said = said or file.read_text().strip()
    if said in ("", "auto", "local"):
        return None
    host, _, port = said.rpartition(":")
    if not port.isdigit() or "/" in host:
        return said
    try:
        # Ray itself asks a machine that is gone for minutes, and then ends the program.
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        if os.environ.get("RAY_ADDRESS"):
            raise ConnectionError(f"{command}: no Ray cluster answers at RAY_ADDRESS={said}: {error}") from error
        return None
    # Ray's own word for it, with which it also takes part in the cluster's authentication by itself.
    return said if os.environ.get("RAY_ADDRESS") else "auto"
