"""A comparison as a table for people, within 80 columns."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table

from ddarts_ext.comparison.run import Comparison


def render(found: Comparison) -> RenderableType:
    """One line a contender, and what stands below them."""
    table = Table(box=None, padding=(0, 1), expand=False)
    table.add_column("method", overflow="fold")
    for head in ("runs", "test %", "± s.e.", "dev.", "best", "M par.", "search s", "MiB"):
        table.add_column(head, justify="right")
    for line in found.lines:
        table.add_row(
            line.label,
            str(line.searches),
            f"{100 * line.mean:.2f}",
            _percent(line.error),
            _percent(line.deviation),
            f"{100 * line.best:.2f}",
            f"{line.parameters / 1e6:.3f}",
            f"{line.seconds:.0f}" if line.seconds else "-",
            f"{line.memory_mib:.0f}" if line.memory_mib else "-",
        )
    plan = found.plan
    notes = ["test: after training, mean over searches; best: the one best on held-out training images"]
    if plan.table is not None:
        notes = [f"test: {plan.table_data} in the table, mean over searches; best: of the best validation there"]
    rules = "; ".join(f"{line.label}: {_counts(line.rules)}" for line in found.lines)
    notes.append(f"read by the rules {rules}")
    if found.correlation is not None:
        notes.append(
            f"supernet's validation and trained accuracy: Pearson {found.correlation['pearson']:.2f}, "
            f"Kendall {found.correlation['kendall']:.2f} over {found.correlation['searches']} searches"
        )
    return Group(table, *notes)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _counts(rules: dict[str, int]) -> str:
    return ", ".join(f"{rule} {count}" for rule, count in rules.items())
