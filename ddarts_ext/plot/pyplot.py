"""``matplotlib``, where it is installed."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any, Literal, get_args

Format = Literal["svg", "pdf", "png"]
FORMATS: tuple[str, ...] = get_args(Format)


def load_pyplot() -> Any:
    """``matplotlib.pyplot``, drawing to files. Raises ValueError where it is not installed."""
    try:
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot
    except ImportError as error:
        raise ValueError(f"plot: pictures need matplotlib (pip install 'ddarts_ext[plot]'): {error}") from error
    return pyplot


def checked_format(name: str) -> str:
    """``name``, if pictures can be written so. Raises ValueError."""
    if name not in FORMATS:
        raise ValueError(f"plot: format must be one of {', '.join(FORMATS)}, got {name!r}")
    return name


def whole_numbers(axis: Any) -> None:
    """Ticks of an axis that counts, epochs or cells, at whole numbers alone."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def marker(history: Sized) -> str:
    """Of a line over epochs: one epoch alone makes no line."""
    return "o" if len(history) < 2 else ""
