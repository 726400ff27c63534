"""A table of op times, measured on one device for networks of one size: what ``ddarts measure-ops`` writes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddarts_ext import spaces
from ddarts_ext.costs.costs import Costs, of_every_op
from ddarts_ext.costs.sizes import NetworkSizes, OpPlace
from ddarts_ext.genotype import Genotype
from ddarts_ext.runs.files import write_whole

VERSION = 1


@dataclass(frozen=True)
class OpTime:
    """Milliseconds of one call. timer: ``clock`` (the host's) or ``graph`` (a CUDA graph replayed)."""

    median_ms: float
    quartiles_ms: tuple[float, float]
    rounds: int
    timer: str


@dataclass(frozen=True)
class LatencyTable:
    """The time of every op at every place of the networks of ``sizes``, on ``batch`` images at once.

    rest_ms: of all else in a network: the mean, over some networks, of their time without that of their ops; rests_ms:
    each of them. device: what it was measured on, see :func:`ddarts_ext.benchmark.device_stamp`.
    """

    sizes: NetworkSizes
    batch: int
    device: Mapping[str, Any]
    ops: Mapping[OpPlace, OpTime]
    rest_ms: float
    rests_ms: tuple[float, ...] = ()

    def costs(self) -> Costs:
        """Predicted milliseconds of a batch: the rest, and every op of every cell."""
        table = of_every_op(self.sizes, lambda place: self.ops[place].median_ms)

        def predicted(genotype: Genotype) -> float:
            return costs.linear(genotype)

        costs = Costs("latency", self.sizes, table, self.rest_ms, predicted)
        return costs

    def check(self, sizes: NetworkSizes, path: str) -> None:
        """Raises ValueError, naming what differs, where the table is of other networks."""
        here, asked = self.sizes.to_json(), sizes.to_json()
        for name, value in asked.items():
            if here[name] != value:
                raise ValueError(
                    f"search: latency_table must be of a network with {name} {value}, got {here[name]} in {path}; "
                    "ddarts measure-ops with the options of the search measures it"
                )

    def save(self, path: str | Path) -> None:
        """JSON, whole or not at all; folders that are missing are made."""
        ops = [{**place._asdict(), **vars(time)} for place, time in self.ops.items()]
        about = {"version": VERSION, "command": "measure-ops", "device": dict(self.device), "batch": self.batch}
        about |= {"network": {**self.sizes.to_json(), "owner": list(self.sizes.owner)}}
        about |= {"rest_ms": self.rest_ms, "rests_ms": list(self.rests_ms), "ops": ops}
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_whole(Path(path), (json.dumps(about, indent=1) + "\n").encode())

    @classmethod
    def load(cls, path: str | Path) -> LatencyTable:
        """What :meth:`save` wrote. Raises FileNotFoundError or ValueError for another file."""
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"search: latency_table must be a file of ddarts measure-ops, got {path}")
        try:
            return cls._read(json.loads(path.read_text(encoding="utf-8")))
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            what = f"{type(error).__name__}: {error}".splitlines()[0]
            raise ValueError(
                f"search: latency_table must be a file of ddarts measure-ops, got {path} ({what})"
            ) from None

    @classmethod
    def _read(cls, data: Mapping[str, Any]) -> LatencyTable:
        if data["command"] != "measure-ops" or data["version"] != VERSION:
            raise ValueError(f"version must be {VERSION}, got {data['version']!r}")
        sizes = sizes_from_json(data["network"])
        ops = {
            OpPlace(str(one["op"]), *(int(one[name]) for name in OpPlace._fields[1:])): OpTime(
                float(one["median_ms"]), _pair(one["quartiles_ms"]), int(one["rounds"]), str(one["timer"])
            )
            for one in data["ops"]
        }
        found = cls(
            sizes, int(data["batch"]), data["device"], ops, float(data["rest_ms"]), tuple(map(float, data["rests_ms"]))
        )
        missing = {*places(sizes)} - {*ops}
        if missing:
            raise ValueError(f"it has no time of {min(missing)}")
        if not all(0 <= time.median_ms < float("inf") for time in ops.values()):
            raise ValueError("times must be finite and not negative")
        return found


def places(sizes: NetworkSizes) -> tuple[OpPlace, ...]:
    """Every place that an op can have in networks of these sizes, each once."""
    found: dict[OpPlace, None] = {}

    def note(place: OpPlace) -> float:
        found[place] = None
        return 0.0

    of_every_op(sizes, note)
    return tuple(found)


def sizes_from_json(data: Mapping[str, Any]) -> NetworkSizes:
    """The sizes in a table. Raises ValueError where its space is not, or no longer, the one that is known."""
    space = spaces.get(str(data["space"]), steps=int(data["nodes"]))
    if list(space.genotype_ops) != data["ops"]:
        raise ValueError(f"ops of space {space.name} must be {', '.join(space.genotype_ops)}, got {data['ops']}")
    in_channels, height, width = (int(value) for value in data["image"])
    return NetworkSizes(
        space,
        int(data["cells"]),
        int(data["channels"]),
        int(data["classes"]),
        in_channels,
        (height, width),
        str(data["stem"]),
        tuple(int(cell) for cell in data["reductions"]),
        tuple(int(row) for row in data["owner"]),
    )


def _pair(values: Any) -> tuple[float, float]:
    low, high = values
    return float(low), float(high)
