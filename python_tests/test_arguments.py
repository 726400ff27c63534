"""What type checkers are told of the constructors is what these take, and mistakes are found before anything runs."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

import ddarts_ext
from ddarts_ext.search import Searcher, Shrinker
from ddarts_ext.search.settings import OPTIONS as SEARCH
from ddarts_ext.training.config import OPTIONS as TRAIN
from ddarts_ext.training.text.config import OPTIONS as TEXT
from ddarts_ext.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path(ddarts_ext.__file__).parents[1]

RIGHT = """
import torch
from ddarts_ext import Searcher, Shrinker, Trainer
from ddarts_ext.search import Method

Searcher("digits", "darts", epochs=3, alpha_optimizer="sgd", reductions=[1, 2], weight_lr=0.1, out="x", table=None)
Searcher("digits", "isdarts", shrink_steps=1)
Searcher(method="ddarts", loss="mse", class_weights="balanced", optimizer=torch.optim.AdamW, flip=True)
Shrinker("digits", "isdarts", shrink_steps=1, device="cpu", resume=True)
Trainer("DARTS_V2_RNN", "text:a.txt", epochs=3, asgd_after=2, dropout_hidden=0.1)
Trainer("DARTS_V2", epochs=3, recipe="few", loss=torch.nn.functional.cross_entropy, autoaugment="none")


def by_hand(method: Method) -> None:
    Searcher("digits", method)
"""
WRONG = {
    'Searcher(method="ddart")': "arg-type",
    'Searcher("digits", "darts", epoch=3)': "call-arg",
    'Searcher("digits", "darts", epochs="3")': "arg-type",
    'Searcher("digits", "darts", ablation_sign="up")': "arg-type",
    'Shrinker("digits", "isdarts", shrink_step=3)': "call-arg",
    'Trainer("DARTS_V2", epoch=3)': "call-arg",
    'Trainer("DARTS_V2", recipe="lots")': "arg-type",
    'Trainer("DARTS_V2", precision="int4")': "arg-type",
}


def test_what_is_written_is_up_to_date() -> None:
    code = "import json, sys; sys.path[:0] = sys.argv[1:]; import write_arguments as w; print(json.dumps(w.texts()))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT / "scripts"), str(PACKAGE)], capture_output=True, text=True, check=True
    )
    for name, text in json.loads(done.stdout).items():
        assert (PACKAGE / name).read_text() == text, f"{name} must be written anew: python scripts/write_arguments.py"


def test_every_argument_is_there() -> None:
    """All that the constructors show, and nothing else."""
    from ddarts_ext.search.arguments import SearchArguments
    from ddarts_ext.training.arguments import TrainArguments

    for kind, arguments, options, more in (
        (Searcher, SearchArguments, SEARCH, {"augmentation"}),
        (Trainer, TrainArguments, {**TRAIN, **TEXT}, {"augmentation", "transforms"}),
    ):
        named = {
            name
            for name, parameter in inspect.signature(kind.__init__).parameters.items()  # type: ignore[misc]
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        }
        assert not named & set(arguments.__annotations__)
        assert set(arguments.__annotations__) == (set(options) | more) - named
    assert {"shrink_steps", "device", "out", "loss"} <= set(inspect.signature(Shrinker).parameters)


def test_a_type_checker_finds_mistakes(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    imports = "from ddarts_ext import Searcher, Shrinker, Trainer\n"
    (tmp_path / "right.py").write_text(RIGHT)
    (tmp_path / "wrong.py").write_text(imports + "\n".join(WRONG) + "\n")
    # The cache of the checks of the package, where there is one: torch's types take long to read.
    cache = ROOT / ".mypy_cache"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")),
            *("--cache-dir", str(cache if cache.is_dir() else tmp_path / "cache")),
            *("--no-error-summary", str(tmp_path / "right.py"), str(tmp_path / "wrong.py")),
        ],
        # Mypy reads packages next to where it starts, but refuses to start where others are installed.
        cwd=PACKAGE if PACKAGE == ROOT else tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    found = done.stdout.splitlines()
    assert not [line for line in found if "right.py" in line], done.stdout
    for number, (line, code) in enumerate(WRONG.items(), start=2):
        errors = [one for one in found if f"wrong.py:{number}: error" in one]
        assert len(errors) == 1, f"{line}: {done.stdout}"
        assert f"[{code}]" in errors[0]
