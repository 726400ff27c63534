"""Parts of a batch, averages of weights, mixed images: each against its formula, and resumed as if not interrupted."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from runs.shown import Shown
from torch import nn
from training.small import GENOTYPE, SMALL, stripes

from ddarts_ext.nn.network import build_network
from ddarts_ext.runs.folder import RunFolder
from ddarts_ext.training import Trainer, load_network
from ddarts_ext.training.average import Average
from ddarts_ext.training.mixing import Mix, mixed_loss


def equal(ours: nn.Module, theirs: nn.Module) -> bool:
    other = theirs.state_dict()
    return all(torch.equal(tensor, other[name]) for name, tensor in ours.state_dict().items())


def test_an_average_follows_its_formula() -> None:
    torch.manual_seed(0)
    network = nn.BatchNorm2d(3)
    average, expected = Average(network, 0.9), network.weight.detach().clone()
    for step in range(1, 40):
        with torch.no_grad():
            network.weight.normal_()
            network.num_batches_tracked += 1  # type: ignore[operator]
        average.follow(network, step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * network.weight.detach()
        torch.testing.assert_close(average.network.weight, expected)
    assert average.network.num_batches_tracked == 39
    assert not average.network.training


ALL: dict[str, Any] = {
    **SMALL, "epochs": 3, "ema": 0.9, "mixup": 0.4, "cutmix": 1.0, "accumulate": 2, "warmup": 1, "nesterov": True,
    "label_smoothing": 0.1, "auxiliary_weight": 0.4, "resized_crop": 0.3, "erasing": 0.5, "holdout": 0.25, "batch": 10,
}  # fmt: skip


@pytest.mark.parametrize("steps", [3, 5, 12])
def test_a_run_with_all_of_it_goes_on_as_if_never_interrupted(tmp_path: Path, steps: int) -> None:
    whole = Trainer(GENOTYPE, stripes(), out=tmp_path / "whole", **ALL).train()
    with pytest.raises(KeyboardInterrupt):
        Trainer(GENOTYPE, stripes(), out=tmp_path / "cut", progress=Shown(steps), **ALL).train()
    again = Trainer(GENOTYPE, stripes(), out=tmp_path / "cut", resume=True, **ALL).train()
    assert equal(whole.network, again.network)
    for ours, theirs in zip(whole.history, again.history, strict=True):
        assert {**ours, "seconds": 0, "memory_mib": 0} == {**theirs, "seconds": 0, "memory_mib": 0}
    assert equal(load_network(tmp_path / "cut").network, whole.network)
    assert whole.best is not None
    assert again.best is not None
    assert whole.best.epoch == again.best.epoch


def test_what_is_kept_is_the_average() -> None:
    plain, averaged = (Trainer(GENOTYPE, stripes(), **{**SMALL, "ema": ema}).train() for ema in (0.0, 0.5))
    assert not equal(plain.network, averaged.network)
    # It has no part in the steps themselves.
    assert [record["train"] for record in plain.history] == [record["train"] for record in averaged.history]
    assert averaged.accuracy > 0.9
    assert all(parameter.requires_grad for parameter in averaged.network.parameters())


def gradients(accumulate: int) -> list[torch.Tensor]:
    """Of a step on a batch whose halves are the same images, which norms cannot tell from one half."""
    trainer = Trainer(GENOTYPE, stripes(), **{**SMALL, "drop_path": 0.0, "accumulate": accumulate, "clip": 0.0})
    run = trainer._start()
    from ddarts_ext.training.step import Step

    step = Step(trainer.config, run.network, trainer.autocast)
    half = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    labels = torch.arange(8) % 2
    run.network.train()
    step(run, half.repeat(accumulate, 1, 1, 1), labels.repeat(accumulate))
    assert run.sums.means()["train_loss"] > 0
    return [parameter.grad.clone() for parameter in run.network.parameters() if parameter.grad is not None]


def test_parts_of_a_batch_give_the_gradient_of_the_batch() -> None:
    for ours, theirs in zip(gradients(1), gradients(3), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_a_batch_in_parts_is_said_and_takes_less_memory() -> None:
    said = Shown()
    Trainer(GENOTYPE, stripes(), progress=said, **{**SMALL, "epochs": 1, "accumulate": 4}).train()
    assert any("batch 16 in 4 parts: about" in line for line in said.lines)


def test_mixup_is_the_loss_of_soft_labels() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(6, 4, generator=generator), torch.arange(6) % 4
    others = labels.roll(1)
    soft = 0.3 * F.one_hot(labels, 4) + 0.7 * F.one_hot(others, 4)
    smooth = soft * 0.9 + 0.1 / 4
    expected = -(smooth * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(mixed_loss(logits, labels, others, 0.3, 0.1), expected)
    images = torch.randn(6, 2, 4, 4, generator=generator)
    torch.testing.assert_close(Mix(0.3).images(images), 0.3 * images + 0.7 * images.roll(1, 0))


def test_mixes_have_the_published_distributions() -> None:
    count = 5000
    mixup = torch.tensor([mix.kept for step in range(count) if (mix := Mix.drawn(0.2, 0.0, (32, 32), 0, 1, step))])
    assert len(mixup) == count
    # Beta(a, a): mean 1/2, variance 1 / (4 (2 a + 1)).
    assert abs(float(mixup.mean()) - 0.5) < 5 * math.sqrt(1 / 5.6 / count)
    assert abs(float(mixup.var()) - 1 / 5.6) < 0.01
    both = [Mix.drawn(0.2, 1.0, (32, 32), 0, 1, step) for step in range(count)]
    cut = [mix for mix in both if mix is not None and mix.box is not None]
    assert abs(len(cut) / count - 0.5) < 5 * 0.5 / math.sqrt(count)
    images = torch.stack([torch.zeros(1, 32, 32), torch.ones(1, 32, 32)])
    for mix in cut[:200]:
        out = mix.images(images)
        assert float(out[0].mean()) == pytest.approx(1.0 - mix.kept, abs=1e-6)
        assert float(out[1].mean()) == pytest.approx(mix.kept, abs=1e-6)
    assert Mix.drawn(0.0, 0.0, (32, 32), 0, 1, 0) is None
    assert Mix.drawn(0.2, 1.0, (32, 32), 0, 1, 7) == both[7]


def test_top_5_is_told_where_there_are_more_classes() -> None:
    from dataclasses import replace

    from ddarts_ext.data import MemorySplit

    data = stripes()
    assert isinstance(data.test, MemorySplit)
    assert isinstance(data.train, MemorySplit)
    many = replace(
        data,
        classes=tuple("abcdefg"),
        train=MemorySplit(data.train.images, torch.arange(64) % 7),
        test=MemorySplit(data.test.images, torch.arange(32) % 7),
    )
    trained = Trainer(GENOTYPE, many, **{**SMALL, "epochs": 1}).train()
    network, images = trained.network.eval(), many.normalise(data.test.images)
    with torch.no_grad():
        among = (network(images).topk(5, 1).indices == many.test.labels[:, None]).any(1).double().mean()
    assert trained.history[0]["test"]["top5"] == pytest.approx(float(among))
    assert "top5" not in Trainer(GENOTYPE, data, **{**SMALL, "epochs": 1}).train().history[0]["test"]


def test_settings_that_came_later_are_not_asked_of_older_runs(tmp_path: Path) -> None:
    Trainer(GENOTYPE, stripes(), out=tmp_path / "run", **{**SMALL, "epochs": 1}).train()
    config = RunFolder(tmp_path / "run").config()
    assert not {"schedule", "ema", "compile", "transforms"} & set(config)
    Trainer(GENOTYPE, stripes(), out=tmp_path / "new", recipe="isdarts-cifar10", **{**SMALL, "epochs": 6}).train()
    config = RunFolder(tmp_path / "new").config()
    assert config["nesterov"]
    assert config["warmup"] == 5


def test_layout_of_images() -> None:
    results = [
        Trainer(GENOTYPE, stripes(), **{**SMALL, "epochs": 1, "layout": layout}).train()
        for layout in ("channels_last", "contiguous")
    ]
    assert results[0].history[0]["train"]["loss"] == pytest.approx(results[1].history[0]["train"]["loss"], rel=1e-3)


def test_drop_path_in_a_tensor_drops_as_often() -> None:
    from ddarts_ext.nn.discrete import Drop, drop_path

    torch.manual_seed(0)
    out = drop_path(torch.ones(20_000, 1, 1, 1), Drop(torch.tensor(0.2)))
    assert out.flatten().unique().tolist() == [0.0, 1.25]
    assert abs(float((out == 0).double().mean()) - 0.2) < 5 * math.sqrt(0.16 / 20_000)
    network = build_network(GENOTYPE, 4, 2, 1)
    assert network.drop_path == 0.0


def test_a_compiled_network_is_traced_once_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through Dynamo and AOTAutograd, without the minutes of code generation: one graph, whatever drop path does; and
    the global generator is as it was."""
    import torch._dynamo

    compiled = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda call, **how: compiled(call, backend="aot_eager", fullgraph=True, **how)
    )
    settings = {**SMALL, "epochs": 3, "batch": 32, "drop_path": 0.4, "compile": True}
    torch._dynamo.reset()
    before, seen = torch.get_rng_state(), torch._dynamo.utils.counters["stats"]["unique_graphs"]
    whole = Trainer(GENOTYPE, stripes(), **settings).train()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] - seen == 1
    assert torch.equal(before, torch.get_rng_state())
    assert whole.network.drop_path == pytest.approx(0.4 * 2 / 3)
    with pytest.raises(KeyboardInterrupt):
        Trainer(GENOTYPE, stripes(), out=tmp_path / "cut", progress=Shown(3), **settings).train()
    again = Trainer(GENOTYPE, stripes(), out=tmp_path / "cut", resume=True, **settings).train()
    assert equal(whole.network, again.network)
    # The first epoch drops nothing.
    plain = Trainer(GENOTYPE, stripes(), **{**settings, "epochs": 1, "compile": False}).train()
    assert whole.history[0]["train"]["loss"] == pytest.approx(plain.history[0]["train"]["loss"], rel=1e-4)


def test_a_network_that_cannot_be_compiled_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(graph: object, example: object) -> None:
        raise RuntimeError("no compiler here\nand more")

    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda call, **how: compiled(call, backend=broken, **how))
    with pytest.raises(
        ValueError, match=r"^train: compile must be off here, as torch.compile fails: no compiler here$"
    ):
        Trainer(GENOTYPE, stripes(), **{**SMALL, "epochs": 1, "compile": True}).train()


def test_the_command_goes_on_with_what_was_set_otherwise(tmp_path: Path) -> None:
    import numpy as np
    from typer.testing import CliRunner

    from ddarts_ext import cli

    pytest.importorskip("kornia")
    random = np.random.RandomState(0)
    images, labels = random.randint(0, 256, (24, 8, 8, 3)).astype(np.uint8), np.arange(24) % 2
    np.savez(tmp_path / "few.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    GENOTYPE.save(tmp_path / "genotype.json")
    said = [
        "train", str(tmp_path / "genotype.json"), "--data", str(tmp_path / "few.npz"), "--recipe", "isdarts-imagenet",
        "--channels", "2", "--batch", "8", "--epochs", "6", "--device", "cpu", "--out", str(tmp_path / "run"),
        *[part for name in ("crop_padding=1", "nesterov=false", "jitter=[0.1,0,0,0]", "warmup=2")
          for part in ("--set", name)],
    ]  # fmt: skip
    result = CliRunner().invoke(cli.app, said)
    assert result.exit_code == 0, result.output
    assert "nesterov false (recipe: true)" in result.output
    more = ["train", "--resume", "--out", str(tmp_path / "run"), "--epochs", "8", "--device", "cpu"]
    result = CliRunner().invoke(cli.app, more)
    assert result.exit_code == 0, result.output
    config = RunFolder(tmp_path / "run").config()
    assert (config["nesterov"], config["warmup"], config["augmentation"]["crop_padding"]) == (False, 2, 1)
    assert config["transforms"]["jitter"] == [0.1, 0, 0, 0]
    assert len(RunFolder(tmp_path / "run").history()) == 8
