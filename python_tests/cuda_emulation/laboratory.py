"""Reads what the laboratory (laboratory.cpp) saw of the kernels of a library, and says what is wasteful in it."""

from __future__ import annotations

import ctypes
import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MOST_WAYS, MOST_SECTORS = 1.1, 1.3
"""Above which it is wasteful: passes of a request to shared memory, sectors of one to global memory over the least."""


@dataclass(frozen=True)
class Site:
    """All executions of one load or store.

    where: the line of the access, then those of the calls that it was inlined through. bytes: of a lane. sectors, ways,
    lanes: of a request on average. used: share of the sectors' bytes that a request wants. least: sectors that these
    bytes would fill, side by side. requests: how many.
    """

    where: str
    write: bool
    shared: bool
    bytes: int
    requests: int
    lanes: float
    sectors: float
    used: float
    least: float
    ways: float

    @property
    def cost(self) -> float:
        """Passes that the memory takes: one a bank conflict's way, one for each 128 bytes of sectors."""
        return self.requests * (self.ways if self.shared else self.sectors / 4)

    @property
    def finding(self) -> str:
        """What is wasteful, or the empty string."""
        if self.shared:
            return f"{self.ways:.1f}-way bank conflict" if self.ways > MOST_WAYS else ""
        if self.sectors > MOST_SECTORS * self.least:
            return f"{self.sectors:.1f} sectors a request, {self.used:.0%} of them used"
        if self.bytes < 4 and self.lanes > 16:
            return f"{self.bytes} bytes a lane"
        return ""


@dataclass(frozen=True)
class Race:
    """Accesses of the same bytes, one a write, that no barrier separates; count: of bytes."""

    first: str
    second: str
    shared: bool
    count: int


@dataclass(frozen=True)
class Kernel:
    """One kernel, with its template arguments.

    blocks: of its smallest launch. moved, needed: bytes read and written, of all requests and distinct.
    """

    name: str
    launches: int
    blocks: int
    threads: int
    dynamic_shared: int
    moved: tuple[int, int]
    needed: tuple[int, int]
    sites: tuple[Site, ...]
    races: tuple[Race, ...] = field(default=())

    def mean(self, value: str, *, shared: bool) -> float:
        """Average of ``sectors``, ``ways`` or ``used`` over the requests to one memory; NaN where there are none."""
        chosen = [site for site in self.sites if site.shared == shared]
        requests = sum(site.requests for site in chosen)
        return sum(getattr(site, value) * site.requests for site in chosen) / requests if requests else float("nan")

    @property
    def over_least(self) -> float:
        """Sectors of requests to global memory, over the least that their bytes would fill; NaN without requests."""
        return self.mean("sectors", shared=False) / self.mean("least", shared=False)

    def findings(self) -> list[tuple[float, Site]]:
        """(share of the kernel's cost in that memory, site) of what is wasteful, the costliest first."""
        total = {shared: sum(s.cost for s in self.sites if s.shared == shared) for shared in (False, True)}
        found = [(site.cost / total[site.shared], site) for site in self.sites if site.finding]
        return sorted(found, key=lambda pair: -pair[0])


@contextmanager
def dry(library: ctypes.CDLL) -> Iterator[None]:
    """Within it launches are seen and nothing runs: grids of large sizes."""
    library.emulation_set_dry(1)
    try:
        yield
    finally:
        library.emulation_set_dry(0)


def forget(library: ctypes.CDLL) -> None:
    """Begin anew."""
    library.laboratory_forget()


def read(library: ctypes.CDLL, path: Path) -> list[Kernel]:
    """The kernels launched since :func:`forget`, in order; path: the library's file, which has the names."""
    library.laboratory_report.restype = ctypes.c_char_p
    seen: list[dict[str, Any]] = json.loads(library.laboratory_report())
    places = {kernel["kernel"] for kernel in seen}
    for kernel in seen:
        places |= {site["place"] for site in kernel["sites"]}
        places |= {race[end] for race in kernel["races"] for end in ("first", "second")}
    frames = dict(zip(sorted(places), _frames(path, sorted(places)), strict=True))
    return [_kernel(kernel, frames) for kernel in seen]


def _kernel(seen: dict[str, Any], frames: dict[int, list[tuple[str, str]]]) -> Kernel:
    merged: dict[tuple[str, bool, bool, int], dict[str, int]] = {}
    for site in seen["sites"]:
        key = (_where(frames[site["place"]]), site["write"], site["shared"], site["bytes"])
        sums = merged.setdefault(key, dict.fromkeys(("requests", "lanes", "used", "sectors", "least", "ways"), 0))
        for name in sums:
            sums[name] += site[name]
    sites = [
        Site(
            *key,
            requests=s["requests"],
            lanes=s["lanes"] / s["requests"],
            sectors=s["sectors"] / s["requests"],
            used=s["used"] / (32 * s["sectors"]) if s["sectors"] else 1.0,
            least=s["least"] / s["requests"],
            ways=s["ways"] / s["requests"],
        )
        for key, s in merged.items()
    ]
    races = [
        Race(_where(frames[race["first"]]), _where(frames[race["second"]]), race["shared"], race["count"])
        for race in seen["races"]
    ]
    return Kernel(
        short_name(frames[seen["kernel"]][-1][0]),
        seen["launches"],
        seen["least_blocks"],
        seen["threads"],
        seen["dynamic_shared"],
        (seen["moved"][0], seen["moved"][1]),
        (seen["needed"][0], seen["needed"][1]),
        tuple(sites),
        tuple(races),
    )


def _where(frames: list[tuple[str, str]]) -> str:
    """``file.cuh:78 < 110``: lines from the access outwards, those of kernels alone."""
    parts: list[str] = []
    last = ""
    for _, place in frames:
        path, _, line = place.rpartition(":")
        name = Path(path).name
        if not name.endswith(".cuh") or name == "cuda_emulation.h":
            continue
        line = line.split(" ")[0]
        parts.append(line if name == last else f"{name}:{line}")
        last = name
    return " < ".join(parts) or (frames[0][1] if frames else "?")


def short_name(demangled: str) -> str:
    """``forward_kernel<float, 1>``: without namespaces, return type and parameters."""
    text = re.sub(r"\(anonymous namespace\)::|_INTERNAL_\w+::|_GLOBAL__N__\w+::|ddarts::", "", demangled)
    depth, end = 0, len(text)
    for index, character in enumerate(text):  # the parameters begin at the first bracket outside of template arguments
        depth += (character == "<") - (character == ">")
        if character == "(" and depth == 0:
            end = index
            break
    text = text[:end].strip()
    depth = 0
    for index in range(len(text) - 1, -1, -1):  # the return type ends at the last space outside of them
        depth += (text[index] == ">") - (text[index] == "<")
        if text[index] == " " and depth == 0:
            text = text[index + 1 :]
            break
    head, bracket, arguments = text.partition("<")
    arguments = re.sub(r"\((?:int|bool)\)", "", arguments).replace("> >", ">>")
    return head.rpartition("::")[2] + bracket + re.sub(r"(\d)[ul]+\b", r"\1", arguments)


def _frames(path: Path, places: list[int]) -> Iterator[list[tuple[str, str]]]:
    """(function, file:line) of every place, from the innermost inlined call outwards."""
    text = subprocess.run(
        ["addr2line", "-e", str(path), "-a", "-f", "-C", "-i", *(hex(place) for place in places)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for part in re.split(r"^0x[0-9a-f]+\n", text, flags=re.MULTILINE)[1:]:
        lines = part.splitlines()
        yield list(zip(lines[::2], lines[1::2], strict=True))
