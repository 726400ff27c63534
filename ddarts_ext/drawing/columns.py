"""The order of items within columns, and their heights."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence

Links = Sequence[Sequence[tuple[int, int]]]
_SWEEPS = 24


def ordered(items: Sequence[Sequence[int]], links: Links) -> list[list[int]]:
    """The columns in an order with few crossings: sweeps by the mean place of the neighbours, then swaps of neighbours
    as long as they help. The same for the same input."""
    columns = [list(column) for column in items]
    best, fewest = [list(column) for column in columns], crossings(columns, links)
    for sweep in range(_SWEEPS):
        if not fewest:
            break
        forward = sweep % 2 == 0
        for gap in range(len(links)) if forward else reversed(range(len(links))):
            _sort(columns, links[gap], gap, forward)
        _swap(columns, links)
        found = crossings(columns, links)
        if found < fewest:
            best, fewest = [list(column) for column in columns], found
    return best


def _sort(columns: list[list[int]], links: Sequence[tuple[int, int]], gap: int, forward: bool) -> None:
    fixed, moved = (gap, gap + 1) if forward else (gap + 1, gap)
    place = {item: index for index, item in enumerate(columns[fixed])}
    near: dict[int, list[int]] = {item: [] for item in columns[moved]}
    for left, right in links:
        item, other = (right, left) if forward else (left, right)
        near[item].append(place[other])
    now = {item: index for index, item in enumerate(columns[moved])}
    mean = {item: sum(others) / len(others) if others else float(now[item]) for item, others in near.items()}
    columns[moved].sort(key=lambda item: (mean[item], now[item]))


def _swap(columns: list[list[int]], links: Links) -> None:
    """Exchange neighbours in a column where that leaves fewer crossings with both sides."""
    for index, column in enumerate(columns):
        near = _neighbours(columns, links, index)
        for _ in range(len(column)):
            changed = False
            for upper in range(len(column) - 1):
                one, two = column[upper], column[upper + 1]
                before = sum(_pairs(near[one][side], near[two][side]) for side in (0, 1))
                after = sum(_pairs(near[two][side], near[one][side]) for side in (0, 1))
                if after < before:
                    column[upper], column[upper + 1], changed = two, one, True
            if not changed:
                break


def _neighbours(columns: list[list[int]], links: Links, index: int) -> dict[int, tuple[list[int], list[int]]]:
    near: dict[int, tuple[list[int], list[int]]] = {item: ([], []) for item in columns[index]}
    if index:
        place = {item: at for at, item in enumerate(columns[index - 1])}
        for left, right in links[index - 1]:
            near[right][0].append(place[left])
    if index < len(links):
        place = {item: at for at, item in enumerate(columns[index + 1])}
        for left, right in links[index]:
            near[left][1].append(place[right])
    for sides in near.values():
        sides[0].sort()
        sides[1].sort()
    return near


def _pairs(upper: list[int], lower: list[int]) -> int:
    """Crossings of the links of two neighbours, the first of which stands above."""
    return sum(len(upper) - bisect_right(upper, place) for place in lower)


def crossings(items: Sequence[Sequence[int]], links: Links) -> int:
    """Pairs of links that cross."""
    count = 0
    for gap, some in enumerate(links):
        left = {item: index for index, item in enumerate(items[gap])}
        right = {item: index for index, item in enumerate(items[gap + 1])}
        seen: list[int] = []
        for _, end in sorted((left[one], right[two]) for one, two in some):
            count += len(seen) - bisect_right(seen, end)
            insort(seen, end)
    return count


def heights(
    items: Sequence[Sequence[int]], tall: Sequence[Sequence[float]], links: Links, gap: float
) -> dict[int, float]:
    """The middle of every item, from 0 downwards: near its neighbours, in the given order, ``gap`` apart."""
    near: dict[int, list[int]] = {item: [] for column in items for item in column}
    for some in links:
        for left, right in some:
            near[left].append(right)
            near[right].append(left)
    offsets = [_offsets(some, gap) for some in tall]
    y = {item: at for column, some in zip(items, offsets, strict=True) for item, at in zip(column, some, strict=True)}
    for sweep in range(_SWEEPS):
        order = range(len(items)) if sweep % 2 == 0 else reversed(range(len(items)))
        for index in order:
            wanted = [sum(y[other] for other in near[item]) / len(near[item]) if near[item] else y[item] for item in
                      items[index]]  # fmt: skip
            # Apart by their offsets, the places that are nearest to the wanted ones are a rising sequence.
            level = _rising([want - off for want, off in zip(wanted, offsets[index], strict=True)])
            y.update(zip(items[index], map(sum, zip(level, offsets[index], strict=True)), strict=True))
    highest = min(y[item] - high / 2 for column, some in zip(items, tall, strict=True) for item, high in
                  zip(column, some, strict=True))  # fmt: skip
    return {item: at - highest for item, at in y.items()}


def _offsets(tall: Sequence[float], gap: float) -> list[float]:
    found, at = [], 0.0
    for high in tall:
        found.append(at + high / 2)
        at += high + gap
    return found


def _rising(values: list[float]) -> list[float]:
    """The rising sequence that is nearest to ``values`` by squares (pool adjacent violators)."""
    blocks: list[tuple[float, int]] = []
    for value in values:
        total, count = value, 1
        while blocks and blocks[-1][0] / blocks[-1][1] > total / count:
            before, more = blocks.pop()
            total, count = total + before, count + more
        blocks.append((total, count))
    return [total / count for total, count in blocks for _ in range(count)]
