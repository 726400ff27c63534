"""How many inputs a fuzz takes, and which: ``DDARTS_FUZZ=N`` gives every fuzz N new ones, of ``--hypothesis-seed``.

Without it each takes the same few every time, together about a minute of one core; CI runs the suite twice.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

GIVEN = os.environ.get("DDARTS_FUZZ")


def count(few: int) -> int:
    """Inputs of a fuzz that takes ``few`` in the suite."""
    return int(GIVEN) if GIVEN else few


def fuzz(few: int) -> settings:
    """Of a test with ``@given``: no deadline of an input, as machines differ; the tests bound time themselves."""
    return settings(
        max_examples=count(few),
        deadline=None,
        database=None,
        derandomize=not GIVEN,
        suppress_health_check=list(HealthCheck),
    )
