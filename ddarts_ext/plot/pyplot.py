"""``matplotlib``, where it is installed."""

from __future__ import annotations

from typing import Any


def load_pyplot() -> Any:
    """``matplotlib.pyplot``, drawing to files. Raises ValueError where it is not installed."""
    try:
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot
    except ImportError as error:
        raise ValueError(f"plot: pictures need matplotlib (pip install 'ddarts_ext[plot]'): {error}") from error
    return pyplot
