"""Functions of the caller: optimisers, augmentation, losses; how config.json names them and what goes on with them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs.small import GENOTYPE, noise, outcome, ran, search, shrink, timeless, train
from torch import Tensor, nn
from torch.nn import functional as F

from ddarts_ext.cli import app
from ddarts_ext.data import Augmentation, per_image
from ddarts_ext.data.own_augment import OwnAugment
from ddarts_ext.runs.optimizers import capturable, own_optimizer, scale_rates
from ddarts_ext.runs.progress import Progress
from ddarts_ext.search.captured import why_not
from ddarts_ext.search.step import Stepper


def focal(outputs: Tensor, labels: Tensor) -> Tensor:
    loss = F.cross_entropy(outputs, labels, reduction="none")
    return ((1 - (-loss).exp()) ** 2 * loss).mean()


def adamw(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.1)


def shaken(images: Tensor) -> Tensor:
    """Draws from every global generator that there is."""
    noise = torch.randint(0, 20, images.shape) + random.randrange(5) + np.random.randint(5)
    return (images.float() + noise).clamp(0, 255) / 255


OWN: dict[str, Any] = {"loss": focal, "optimizer": adamw, "augment": shaken}
KINDS: dict[str, Any] = {"search": search, "train": train}


class Stops(Progress):
    def __init__(self, after: int) -> None:
        self.left, self.lines = after, []  # type: ignore[var-annotated]

    def step(self) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt

    def say(self, line: str) -> None:
        self.lines.append(line)


def own_of(kind: str) -> dict[str, Any]:
    return {**OWN, "alpha_optimizer": lambda groups: torch.optim.SGD(groups, lr=0.1)} if kind == "search" else OWN


@pytest.mark.parametrize("kind", KINDS)
def test_they_are_named_and_must_be_given_again(kind: str, tmp_path: Path) -> None:
    """A run that was interrupted goes on with them to the same end; without them, or by the command line, it is refused
    in one line."""
    begin, own = KINDS[kind], own_of(kind)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        random.seed(3)
        whole = ran(begin(**own))
    with pytest.raises(KeyboardInterrupt):
        ran(begin(tmp_path / "run", progress=Stops(4), **own))
    said = json.loads((tmp_path / "run" / "config.json").read_text())
    names = {"loss": "focal", "optimizer": "adamw", "augment": "shaken"}
    assert said["own"] == ({**names, "alpha_optimizer": "function"} if kind == "search" else names)
    assert said["loss"] == "focal"
    for name in own:
        left = {key: value for key, value in own.items() if key != name}
        with pytest.raises(
            ValueError, match=rf"{kind}: {name} must be the function \w+ to resume the run in .*left out"
        ):
            begin(tmp_path / "run", resume=True, **left)
    with pytest.raises(ValueError, match=f"{kind}: metric must be left out to resume"):
        begin(tmp_path / "run", resume=True, metric=F.cross_entropy, **own)
    from typer.testing import CliRunner

    done = CliRunner().invoke(app, [kind, "--resume", "--out", str(tmp_path / "run")])
    assert "must be given again by the program that began the run, as it is the function" in str(done.exception)
    before = torch.get_rng_state(), random.getstate()
    resumed = ran(begin(tmp_path / "run", resume=True, **own))
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert timeless(resumed.history) == timeless(whole.history)
    assert all(torch.equal(a, b) for a, b in zip(outcome(resumed), outcome(whole), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_rates_fall_from_what_the_optimiser_was_made_with(kind: str) -> None:
    made: list[torch.optim.Optimizer] = []

    def factory(parameters: Any) -> torch.optim.Optimizer:
        parameters = list(parameters)
        groups = [{"params": parameters[:1], "lr": 2e-3}, {"params": parameters[1:]}]
        made.append(torch.optim.RMSprop(groups, lr=1e-3))
        return made[-1]

    result = ran(KINDS[kind](optimizer=factory))
    usual = ran(KINDS[kind]())
    name = {"search": "weight_lr", "train": "lr"}[kind]
    rates, others = ([record[name] for record in found.history] for found in (result, usual))
    assert rates == pytest.approx([2e-3 * rate / others[0] for rate in others])
    first, second = (group["lr"] for group in made[-1].param_groups)
    assert first == pytest.approx(2 * second)
    assert not torch.equal(outcome(result)[0], outcome(usual)[0])


def test_edges_and_alphas_of_an_own_optimiser() -> None:
    """da2s moves the weights of edges before the alphas: a group of their own."""
    groups: list[int] = []

    def factory(given: Any) -> torch.optim.Optimizer:
        groups.append(len(given))
        return torch.optim.Adam(given, lr=0.05)

    result = search(method="da2s", alpha_start=1, alpha_optimizer=factory).search()
    assert groups[-1] == 2
    first, second, *_ = result.history
    assert first["alphas"] == [[[0.0] * 8] * 2] * 3 or first["alpha_lr"] == 0
    assert second["alpha_lr"] > 0
    assert second["alphas"] != first["alphas"]


def test_a_search_that_shrinks_takes_them() -> None:
    result = shrink(optimizer=adamw, loss=focal, augment=shaken).search()
    assert result.genotype.layers == 1


@pytest.mark.parametrize(
    ("kind", "given", "error", "said"),
    [
        ("train", {"optimizer": 3}, TypeError, "optimizer must be a function, got int"),
        ("train", {"optimizer": lambda: None}, TypeError, "optimizer must be a function of the parameters"),
        ("train", {"optimizer": lambda p: p}, TypeError, "optimizer must give a torch.optim.Optimizer, got list"),
        ("train", {"optimizer": torch.optim.LBFGS}, TypeError, "optimizer must take steps without a function of the"),
        ("train", {"optimizer": adamw, "lr": 0.1}, ValueError, "lr must be left out with optimizer, got 0.1"),
        ("search", {"optimizer": adamw, "momentum": 0.5}, ValueError, "momentum must be left out with optimizer"),
        ("search", {"optimizer": adamw, "order": 2, "method": "darts"}, ValueError, "order must be 1 with optimizer"),
        ("search", {"alpha_optimizer": lambda p: p}, TypeError, "alpha_optimizer must give a torch.optim.Optimizer"),
        (
            "search",
            {"augment": lambda x: x[:, :, 1:]},
            ValueError,
            r"augment must give \[2, 1, 4, 4\], uint8 or floats",
        ),
        (
            "train",
            {"augment": lambda x: x.long()},
            ValueError,
            r"uint8 or floats from 0 to 1, got int64 \[2, 1, 4, 4\]",
        ),
        ("train", {"augment": lambda x: x.nothing}, ValueError, r"augment must take uint8 \[2, 1, 4, 4\]: .*nothing"),
        ("train", {"augment": lambda x: 3}, TypeError, "augment must give a tensor, got int"),
        ("train", {"loss": lambda x, y: x}, ValueError, r"loss must give \[\] of 4 images"),
    ],
)
def test_what_is_refused(kind: str, given: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=f"^{kind}: .*{said}"):
        KINDS[kind](**given)


def test_an_optimiser_that_leaves_weights_out_is_refused() -> None:
    weights = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))]
    with pytest.raises(ValueError, match="optimizer must take all parameters that it is given, got 1 of 2"):
        own_optimizer("train", "optimizer", lambda p: torch.optim.SGD(p[:1], lr=1), weights)
    optimizer = own_optimizer("train", "optimizer", lambda p: torch.optim.SGD(p, lr=0.5), weights)
    assert scale_rates(optimizer, 0.5) == 0.25


def test_what_a_graph_may_hold() -> None:
    """Optimisers that read the host's numbers, and functions that may draw anywhere, run as Python does."""
    weight = [nn.Parameter(torch.ones(2))]
    assert capturable(torch.optim.Adam(weight, capturable=True))
    assert capturable(torch.optim.SGD(weight, lr=0.1, fused=True))
    assert not capturable(torch.optim.SGD(weight, lr=0.1))
    assert not capturable(torch.optim.AdamW(weight))
    assert "AdamW of optimizer is not made with capturable=True" in str(search(optimizer=adamw)._kept_eager)
    assert search(optimizer=lambda p: torch.optim.Adam(p, capturable=True))._kept_eager is None
    run = search(augment=shaken)
    assert why_not(run.config, run.dataset, torch.device("cuda"), ()) == "augment is a function of the caller"
    run = search(loss=focal)
    assert why_not(run.config, run.dataset, torch.device("cuda"), ()) is None


def test_augmentation_takes_the_place_of_the_data_sets_own() -> None:
    """And every step sees it; what is said beside it counts again."""
    seen: list[Tensor] = []
    real = Stepper.weights

    def weights(self: Any, batch: Any, sums: Any) -> None:
        seen.append(batch[0])
        real(self, batch, sums)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stepper, "weights", weights)
        run = search(augment=torch.zeros_like, epochs=1)
        assert run.config.augmentation == Augmentation()
        run.search()
    # noise() is normalised by 0.5 and 0.25, so black is -2.
    assert seen
    assert all(torch.all(images == -2) for images in seen)
    assert search(augment=torch.zeros_like, flip=True).config.augmentation == Augmentation(flip=True)
    trainer = train(augment=torch.zeros_like, recipe="darts-cifar10", crop_padding=2)
    assert (trainer.config.augmentation, trainer.config.transforms.erasing) == (Augmentation(crop_padding=2), 0)


def test_per_image_draws_for_every_image() -> None:
    images = torch.arange(8 * 2 * 2, dtype=torch.uint8).view(8, 1, 2, 2)

    def mirrored(image: Tensor) -> Tensor:
        assert image.dim() == 3
        return image.flip(-1) if torch.rand(()) < 0.5 else image

    augment = OwnAugment("train", per_image(mirrored))
    one, again = (augment(images, torch.Generator().manual_seed(5)) for _ in range(2))
    other = augment(images, torch.Generator().manual_seed(6))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    kept = (one == images).flatten(1).all(1)
    assert kept.any()
    assert not kept.all()
    assert train(augment=per_image(mirrored)).config.own == {"augment": "mirrored"}
    assert GENOTYPE.layers == 3
    assert noise().before is None
