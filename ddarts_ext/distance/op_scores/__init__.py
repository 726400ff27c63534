"""How good an op is by itself: the weights of the distance between architectures (D-DARTS, Table 1).

Beside this file: `median.json`, the paper's table, and `mean.json`, the one that its code reads.
"""

import json
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from ddarts_ext.genotype.checks import shown
from ddarts_ext.genotype.files import decoded
from ddarts_ext.runs.files import write_whole

BUILT_IN = ("median", "mean")
MAX_OPS = 48
"""Ops that an edge can be coded with."""


def load_scores(source: Mapping[str, float] | str | os.PathLike[str] = "median") -> dict[str, float]:
    """Op name to score: `median`, `mean`, a mapping, or a file `{"version": 1, "scores": {op: score, ...}}`.

    Raises ValueError unless there is at least one score and all are finite and positive.
    """
    if isinstance(source, Mapping):
        scores: Any = dict(source)
    else:
        scores = _read(source)
    if not isinstance(scores, dict) or not scores:
        raise ValueError(f"scores: must be a non-empty object of op names and numbers, got {shown(scores)}")
    if len(scores) > MAX_OPS:
        raise ValueError(f"scores: must be of at most {MAX_OPS} ops, got {len(scores)}")
    found = {}
    for op, score in scores.items():
        number = isinstance(score, int | float) and not isinstance(score, bool)
        # The bounds keep sums of scores finite and their shares above zero.
        if not (number and 1e-100 < score < 1e100):
            raise ValueError(f"scores: {str(op)[:60]} must be a finite number > 0, got {shown(score)}")
        found[op] = float(score)
    return found


def save_scores(scores: Mapping[str, float], path: str | os.PathLike[str], **about: Any) -> None:
    """Write a score file, whole or not at all; `about` holds further keys that say where the scores are from."""
    data = {"version": 1, **about, "scores": load_scores(scores)}
    write_whole(Path(path), (json.dumps(data, indent=1) + "\n").encode())


def _read(source: str | os.PathLike[str]) -> Any:
    name = os.fspath(source)
    if name in BUILT_IN:
        text = resources.files(__name__).joinpath(f"{name}.json").read_text(encoding="utf-8")
    elif os.path.isfile(name):
        text = decoded(name, "scores")
    else:
        raise ValueError(f"scores: must be one of {', '.join(BUILT_IN)} or a file, got {shown(name)}")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"scores: {name} is not JSON: {error}") from error
    if not isinstance(data, dict) or data.get("version") != 1:
        raise ValueError(f'scores: {name} must be {{"version": 1, "scores": {{...}}}}')
    return data.get("scores")
