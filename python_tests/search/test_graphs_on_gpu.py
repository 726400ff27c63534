"""On a GPU: steps that are captured as CUDA graphs give what steps that are launched op by op give."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from runs.shown import Shown
from runs.small import noise, search, shrink

from ddarts_ext.data import Augmentation
from ddarts_ext.data.augment import augment
from ddarts_ext.runs.graphs import CudaRecording, own_stream
from ddarts_ext.search.step import Stepper

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

GPU: dict[str, Any] = {"device": "cuda", "channels": 4}
KINDS: dict[str, Any] = {
    "darts": lambda **s: search(method="darts", data=noise(44, 8), **{**GPU, **s}),
    "darts under a budget": lambda **s: search(
        method="darts", data=noise(44, 8), budget="params=1800", budget_rate=5.0, **{**GPU, **s}
    ),
    "gdas": lambda **s: search(method="gdas", data=noise(44, 8), **{**GPU, **s}),
    "drnas": lambda **s: search(method="drnas", data=noise(44, 8), **{**GPU, **s}),
    "sdarts-rs": lambda **s: search(method="sdarts-rs", data=noise(44, 8), **{**GPU, **s}),
    "fairdarts": lambda **s: search(method="fairdarts", data=noise(44, 8), **{**GPU, **s}),
    "ddarts": lambda **s: search(data=noise(44, 8), zero_one_start=0.5, **{**GPU, **s}),
    "ddarts, every 2nd step": lambda **s: search(data=noise(44, 8), ablation_every=2, **{**GPU, **s}),
    "ddarts in bfloat16": lambda **s: search(data=noise(44, 8), precision="bf16", **{**GPU, **s}),
    "shrinking": lambda **s: shrink(data=noise(22, 8), **{**GPU, **s}),
    "shrinking, darts": lambda **s: shrink(data=noise(22, 8), space="darts", **{**GPU, **s}),
}


def losses(result: Any) -> torch.Tensor:
    return torch.tensor([record["train"]["loss"] for record in result.history])


def assert_alike(one: Any, other: Any, tolerance: float = 1e-3) -> None:
    torch.testing.assert_close(one.alphas, other.alphas, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(losses(one), losses(other), rtol=tolerance, atol=tolerance)
    for ours, theirs in zip(one.history, other.history, strict=True):
        assert ours.keys() == theirs.keys()


@pytest.mark.parametrize("name", KINDS)
def test_captured_is_like_launched(name: str) -> None:
    captured, launched = (KINDS[name](graphs=graphs).search() for graphs in ("on", "off"))
    assert_alike(captured, launched, 2e-2 if "bfloat16" in name else 1e-3)


@pytest.mark.parametrize("name", ["ddarts", "shrinking"])
def test_steps_are_replayed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python runs a step of either size of batch twice for every network, and no more."""
    calls = 0
    real = Stepper.weights

    def counted(self: Stepper, *arguments: Any) -> None:
        nonlocal calls
        calls += 1
        real(self, *arguments)

    monkeypatch.setattr(Stepper, "weights", counted)
    KINDS[name](graphs="on").search()
    assert calls <= 4 * (2 if name == "shrinking" else 1)


@pytest.mark.parametrize("steps", [3, 8])
def test_resumed_is_like_uninterrupted(steps: int, tmp_path: Path) -> None:
    out = tmp_path / "run"
    whole = KINDS["ddarts"](graphs="on").search()
    with pytest.raises(KeyboardInterrupt):
        KINDS["ddarts"](graphs="on", out=out, progress=Shown(steps)).search()
    assert_alike(KINDS["ddarts"](graphs="on", out=out, resume=True).search(), whole)


def test_a_replay_draws_what_the_step_itself_would() -> None:
    device = torch.device("cuda")
    images = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8, device=device)
    how = Augmentation(crop_padding=2, flip=True, cutout=4)
    eager, graphed = (torch.Generator(device).manual_seed(5) for _ in range(2))

    def drawn(generator: torch.Generator) -> torch.Tensor:
        return augment(images, how, (0.5,) * 3, (0.25,) * 3, generator=generator)

    out = drawn(graphed).clone()
    torch.testing.assert_close(out, drawn(eager), rtol=0, atol=0)
    with own_stream(device):
        recording = CudaRecording(torch.cuda.graph_pool_handle(), [graphed])
        recording.record(lambda: out.copy_(drawn(graphed)))
        for _ in range(3):
            recording.replay()
            torch.testing.assert_close(out, drawn(eager), rtol=0, atol=0)
        assert torch.equal(graphed.get_state(), eager.get_state())


FAILS = """
import torch
from ddarts_ext.search.step import Stepper
from runs.shown import Shown
from search.test_graphs_on_gpu import KINDS, assert_alike

real = Stepper.weights
def waits(self, batch, sums):
    real(self, batch, sums)
    float(batch[0].sum())
Stepper.weights = waits
shown = Shown()
found = KINDS["ddarts"](graphs="auto", progress=shown).search()
said = [line for line in shown.lines if "could not be captured" in line]
assert len(said) == 1, shown.lines
print(said[0])
assert torch.rand(3, device="cuda").isfinite().all()  # torch's own generator draws again
assert_alike(found, KINDS["ddarts"](graphs="off").search())
"""


def test_a_step_that_waits_for_the_device_is_launched_and_that_is_said() -> None:
    """In a process of its own: a capture that broke off may leave traces in it. The tests' folder, not the checkout, is
    where it looks for modules first: the package is the one that is installed."""
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", FAILS], cwd=root, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
