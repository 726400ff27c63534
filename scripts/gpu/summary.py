"""What a visit found, on one screen: every step, then why some did not pass, then the figures."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

LENGTH = 10_000
Record = Mapping[str, Any]


def summary(records: Sequence[Record], part: int, seconds: float) -> str:
    """At most 10,000 characters."""
    passed = sum(record["status"] == "passed" for record in records)
    lines = [f"gpu_check part {part}: {passed} of {len(records)} steps passed, {seconds:.0f} s"]
    lines += [_line(record) for record in records]
    for record in records:
        lines += _complaints(record)
    for record in records:
        lines += _figures(record)
    text = "\n".join(line[:160] for line in lines)
    return (
        text if len(text) <= LENGTH else text[: LENGTH - 40].rsplit("\n", 1)[0] + "\n... more in the files of the steps"
    )


def _line(record: Record) -> str:
    took = f"{record['seconds']:7.1f} s" if "seconds" in record else " " * 9
    why = record.get("reason") or ("" if record.get("code") in (0, None) else f"exit status {record['code']}")
    result = record.get("result")
    stopped = result.get("stopped", "") if isinstance(result, dict) else ""
    return f"{record['step']:18} {record['status']:10} {took}  {why or (stopped and f'stopped {stopped}')}".rstrip()


def _complaints(record: Record) -> Iterator[str]:
    result = record.get("result")
    if not isinstance(result, dict):
        return
    failed = result.get("failed") or result.get("failures") or ()
    for found in list(failed)[:12]:
        words = found if isinstance(found, str) else " ".join(str(value) for value in found.values() if value)
        yield f"{record['step']}: {words}"
    if len(failed) > 12:
        yield f"{record['step']}: and {len(failed) - 12} more"


def _figures(record: Record) -> Iterator[str]:
    result = record.get("result")
    if not isinstance(result, dict):
        return
    if "gpu" in result:
        yield f"{result['gpu']}, {result['torch']}, {result['cores']} cores"
    rows = result.get("rows") or ()
    yield from _ops(rows) if record["step"] == "op-benchmarks" else map(_row, rows)
    if record["step"] == "profile-table":
        for name, found in result.items():
            if isinstance(found, dict):
                idle = max(0.0, 1 - found["busy_ms"] / found["wall_ms"])
                yield f"{name}: {found['wall_ms']:.1f} ms, {found['launches']} launches, GPU idle {idle:.0%}"


def _row(row: Record) -> str:
    words = [f"{row['op']} {row['case']} {row['candidate']}: {row['median_ms']:.2f} ms"]
    words += [f"{ratio:.2f}x {other}" for other, ratio in row["speedup"].items() if other != row["candidate"]][:2]
    if row.get("launches") is not None:
        words.append(f"{row['launches']} launches")
    if row.get("idle_share") is not None:
        words.append(f"idle {row['idle_share']:.0%}")
    if row.get("peak_bytes"):
        words.append(f"{row['peak_bytes'] / 2**20:.0f} MiB")
    if row.get("images"):
        words.append(f"{row['images'] / row['median_ms'] * 1e3:.0f} images/s")
    return ", ".join(words)


def _ops(rows: Sequence[Record]) -> Iterator[str]:
    """A line an op: the kernel in channels-last, over all cases."""
    by_op: dict[str, list[Record]] = {}
    for row in rows:
        if row["candidate"] == "kernel channels-last":
            by_op.setdefault(row["op"], []).append(row)
    for op, several in by_op.items():
        ratios = [row["speedup"]["eager channels-last"] for row in several if "eager channels-last" in row["speedup"]]
        shares = [row["share_of_copy"] for row in several if row["share_of_copy"] is not None]
        words = [f"{op}, {len(several)} cases"]
        if ratios:
            words.append(f"{min(ratios):.2f}x to {max(ratios):.2f}x eager channels-last")
        if shares:
            words.append(f"{min(shares):.0%} to {max(shares):.0%} of a copy (median {statistics.median(shares):.0%})")
        yield ", ".join(words)
