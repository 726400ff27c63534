"""What a search takes for itself on small data: alphas must be able to come far enough to decide."""

from __future__ import annotations

from typing import Any

import pytest
from runs.small import noise

from ddarts_ext.search import methods
from ddarts_ext.search.settings import resolve


def preset(name: str, size: int, images: int, **said: Any) -> dict[str, Any]:
    return dict(methods.preset(methods.get(name), (size, size), images, 0.5, said))


@pytest.mark.parametrize(("size", "images", "epochs"), [(8, 1442, 10), (32, 2000, 12), (32, 10_000, 50), (96, 500, 30)])
def test_alphas_can_decide(size: int, images: int, epochs: int) -> None:
    """The sum of the rates of all steps bounds how far an alpha comes; .85 is at 1.73."""
    method = methods.get("ddarts")
    found = preset("ddarts", size, images, epochs=epochs)
    steps = images // 2 // found["batch"] * (epochs - found["alpha_start"])
    rate = found.get("alpha_lr", method.architect.alpha_lr)
    # It falls by a cosine, so the mean is half of the first.
    assert steps * rate / 2 > 2 * 1.735
    assert found["alpha_start"] < epochs


def test_the_floor_of_contributions_is_higher_where_there_is_an_ablation_loss() -> None:
    assert preset("ddarts", 32, 2000)["ablation_delta"] == 0.05
    assert "ablation_delta" not in preset("fairdarts", 32, 2000)


def test_large_data_takes_the_published_settings() -> None:
    for name in methods.METHODS:
        assert preset(name, 32, 50_000) == {}


def test_few_epochs_leave_some_for_the_alphas() -> None:
    for epochs in range(1, 12):
        assert preset("ddarts", 8, 1000, epochs=epochs)["alpha_start"] < epochs


def test_sizes_are_those_of_small_images() -> None:
    assert "cells" in preset("darts", 8, 1000)
    assert "cells" not in preset("darts", 32, 1000)
    assert preset("isdarts", 32, 1000) == {}


def test_the_network_of_nasbench201_has_its_cells_whatever_the_method() -> None:
    """Published are 15, five in each of three stages; 8, as in other spaces, would be no network of that space."""
    found, refused, images = {}, {}, noise(100, size=32)
    for name in methods.METHODS:
        try:
            found[name] = resolve(images, name, "cpu", {"space": "nasbench201"}).method.cells
        except ValueError as error:
            refused[name] = str(error)
    assert set(found.values()) == {15}
    assert {name: text.split()[1] for name, text in refused.items()} == {
        "ddarts": "space", "dartopti": "start", "pdarts": "stage_ops"
    }  # fmt: skip
    told = resolve(images, "darts", "cpu", {"space": "nasbench201", "cells": 6})
    assert told.method.cells == 6
