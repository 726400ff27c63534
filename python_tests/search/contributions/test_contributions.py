"""Contributions in one pass equal N + 1 networks and autograd through the formula."""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nn.golden import alphas, fill, images, targets
from torch.utils._python_dispatch import TorchDispatchMode

from ddarts_ext import spaces
from ddarts_ext.nn.cell import Cell
from ddarts_ext.nn.forward_pass import Pass
from ddarts_ext.nn.supernet import Supernet
from ddarts_ext.runs.objective import objective_of
from ddarts_ext.search.contributions.ablated_pass import plan_chunks
from ddarts_ext.search.contributions.marginal import contributions, removed_cells
from ddarts_ext.search.contributions.naive import contributions_naive, drawn_weights, logits_without
from ddarts_ext.search.contributions.objectives import ablation

FORMS = {
    "bounded": lambda m, mean: (m - mean) / m.abs().mean().detach(),
    "mean": lambda m, mean: (m - mean) / mean.abs(),
    "paper_plus": lambda m, mean: (m - mean) / mean,
    "code": lambda m, mean: -(m - mean) / mean,
}
EXACT = {"rtol": 1e-10, "atol": 1e-10}


def network(cells: int, channels: int = 2, steps: int = 2) -> Supernet:
    torch.manual_seed(cells)
    space = spaces.get("darts", steps=steps)
    return Supernet(space, cells=cells, channels=channels, classes=3).double()


def batch(size: int = 3, side: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(size, 3, side, side, dtype=torch.float64), torch.arange(size) % 3


def table_for(net: Supernet, rows: int) -> torch.Tensor:
    return torch.randn(rows, len(net.space.edges), len(net.space.ops), dtype=torch.float64)


def formula_gradient(
    net: Supernet,
    table: torch.Tensor,
    to_weights: Callable[[torch.Tensor], torch.Tensor],
    data: tuple[torch.Tensor, torch.Tensor],
    removals: Sequence[Sequence[int]],
    inactive: str,
    form: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:
    """All ablation losses and, per row, the gradient of its own: autograd through N + 1 networks and the formula."""
    leaf = table.clone().requires_grad_(True)
    weights, p = to_weights(leaf), Pass(statistics="batch")
    drawn = drawn_weights(weights.detach(), inactive, None)
    losses = [
        F.cross_entropy(logits_without(net, weights, data[0], cells, drawn, p), data[1]) for cells in [(), *removals]
    ]
    contributions = losses[0] - torch.stack(losses[1:])
    values = form(contributions, contributions.mean())
    rows = [torch.autograd.grad(value, leaf, retain_graph=True)[0][i] for i, value in enumerate(values)]
    return values.detach(), torch.stack(rows)


@pytest.mark.parametrize(
    ("cells", "inactive"),
    [
        (4, "bypass"),
        (4, "zero"),
        (4, "half"),
        (4, "random"),
        (8, "bypass"),
        (8, "random"),
        (14, "bypass"),
        (14, "half"),
    ],
)
def test_equals_the_naive_oracle(cells: int, inactive: str) -> None:
    net, (x, y) = network(cells, steps=2 if cells == 4 else 1), batch(2)
    table = table_for(net, cells)
    generator = torch.Generator()
    expected = contributions_naive(
        net, table, torch.sigmoid, x, y, inactive=inactive, generator=generator.manual_seed(5)
    )
    for memory, keep in ((0.0, False), (1.0, False), (math.inf, False), (1.0, True), (math.inf, True)):
        options: dict[str, Any] = {"inactive": inactive, "memory": memory, "keep": keep}
        found = contributions(net, table, torch.sigmoid, x, y, generator=generator.manual_seed(5), **options)
        for ours, theirs in zip(dataclasses.astuple(found), dataclasses.astuple(expected), strict=True):
            torch.testing.assert_close(ours, theirs, **EXACT)
        assert found.own_gradient is None


@pytest.mark.parametrize("kind", ["weighted", "multi-label", "numbers", "function"])
def test_follow_the_loss(kind: str) -> None:
    """By definition, network by network, with the loss of the search: its gradients too."""
    net, (x, classes) = network(4), batch(3)
    count = net.classes
    generator = torch.Generator().manual_seed(1)
    labels = {
        "multi-label": torch.randint(0, 2, (3, count), generator=generator).double(),
        "numbers": torch.randn(3, count, generator=generator, dtype=torch.float64),
    }.get(kind, classes)
    weight = torch.arange(1.0, count + 1, dtype=torch.float64)
    own: Any = {"weighted": functools.partial(F.cross_entropy, weight=weight), "function": F.multi_margin_loss}
    objective = objective_of("search", labels, count, torch.device("cpu"))
    if kind in own:
        objective = dataclasses.replace(objective, loss_name=kind, loss_function=own[kind])
    table = table_for(net, 4)
    expected = contributions_naive(net, table, torch.sigmoid, x, labels, objective=objective)
    usual = contributions_naive(net, table, torch.sigmoid, x, classes)
    found = contributions(net, table, torch.sigmoid, x, labels, objective=objective)
    for ours, theirs in zip(dataclasses.astuple(found), dataclasses.astuple(expected), strict=True):
        torch.testing.assert_close(ours, theirs, **EXACT)
    assert not torch.allclose(found.without, usual.without)


@pytest.mark.parametrize("gradient", ["exact", "stopgrad_mean", "none"])
def test_with_the_graph_kept_no_cell_runs_again(gradient: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """N cells of the trunk and N (N - 1) / 2 of the groups, most of them together; statistics move once."""
    net, (x, y) = network(4, steps=1), batch(2)
    other, table = copy.deepcopy(net), table_for(net, 4)
    expected = contributions(other, table, torch.sigmoid, x, y, gradient=gradient)
    runs = 0
    real = Cell.forward

    def counted(self: Cell, *arguments: Any) -> torch.Tensor:
        nonlocal runs
        runs += 1
        return real(self, *arguments)

    monkeypatch.setattr(Cell, "forward", counted)
    found = contributions(net, table, torch.sigmoid, x, y, gradient=gradient, memory=math.inf, keep=True)
    assert runs == 4 + 3
    for name, ours in dataclasses.asdict(found).items():
        theirs = getattr(expected, name)
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours, theirs, **EXACT)
    for ours, theirs in zip(net.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, **EXACT)


@pytest.mark.parametrize("sign", FORMS)
def test_own_loss_of_every_cell_has_its_exact_gradient(sign: str) -> None:
    net, (x, y) = network(4), batch()
    table = table_for(net, 4)

    removals = [(i,) for i in range(4)]
    values, gradient = formula_gradient(net, table, torch.sigmoid, (x, y), removals, "bypass", FORMS[sign])
    found = contributions(net, table, torch.sigmoid, x, y)
    result = ablation(found.loss, found.without, found.full_gradient, found.ablated_gradient, sign=sign, delta=1e-6)
    torch.testing.assert_close(result.value, values, **EXACT)
    torch.testing.assert_close(result.gradient, gradient, **EXACT)


@pytest.mark.parametrize("removal", ["all", "owners"])
@pytest.mark.parametrize(
    ("owner", "inactive"),
    [((0, 0, 1, 0, 2, 1), "bypass"), ((0, 0, 1, 0, 2, 1), "half"), ((0, 1, 2, 0, 1, 2), "zero")],
)
def test_shared_rows(owner: tuple[int, ...], inactive: str, removal: str) -> None:
    net, (x, y) = network(6, steps=1), batch(2)
    table, rows = table_for(net, 3), torch.tensor(owner)

    def to_weights(leaf: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(leaf)[rows]

    cells = [[c for c, row in enumerate(owner) if row == i] for i in range(3)]
    removals = cells if removal == "all" else [found[:1] for found in cells]
    arguments = (net, table, to_weights, (x, y), removals, inactive)
    values, gradient = formula_gradient(*arguments, FORMS["bounded"])
    _, constant = formula_gradient(*arguments, lambda m, mean: (m - mean.detach()) / m.abs().mean().detach())
    for memory in (0.0, math.inf):
        options = {"owner": owner, "removal": removal, "inactive": inactive, "memory": memory}
        for mode, expected in (("exact", gradient), ("stopgrad_mean", constant)):
            found = contributions(net, table, to_weights, x, y, gradient=mode, **options)
            result = ablation(
                found.loss,
                found.without,
                found.full_gradient,
                found.ablated_gradient,
                found.own_gradient,
                gradient=mode,
            )
            torch.testing.assert_close(result.value, values, **EXACT)
            torch.testing.assert_close(result.gradient, expected, **EXACT)


def test_one_row_has_no_ablation_loss() -> None:
    net, (x, y) = network(4), batch()
    table = table_for(net, 1)
    found = contributions(net, table, lambda t: torch.sigmoid(t).expand(4, -1, -1), x, y, owner=(0, 0, 0, 0))
    result = ablation(found.loss, found.without, found.full_gradient, found.ablated_gradient)
    assert result.value.tolist() == [0.0]
    torch.testing.assert_close(result.gradient, torch.zeros_like(table), rtol=0, atol=1e-12)


@pytest.mark.parametrize("gradient", ["exact", "stopgrad_mean", "none"])
def test_buffers_follow_one_pass_of_the_whole_network(gradient: str) -> None:
    net, (x, y) = network(4), batch()
    table = table_for(net, 4)
    twin = copy.deepcopy(net)
    twin(x, torch.sigmoid(table), Pass())
    contributions(net, table, torch.sigmoid, x, y, gradient=gradient)
    for (name, ours), theirs in zip(net.named_buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, msg=lambda m, name=name: f"{name}: {m}", **EXACT)
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


def test_eval_mode_reads_running_statistics() -> None:
    net, (x, y) = network(4), batch()
    table = table_for(net, 4)
    net(x, torch.sigmoid(table), Pass())
    net.eval()
    expected = contributions_naive(net, table, torch.sigmoid, x, y)
    found = contributions(net, table, torch.sigmoid, x, y)
    torch.testing.assert_close(found.loss, expected.loss, **EXACT)
    torch.testing.assert_close(found.without, expected.without, **EXACT)


def test_chunks_cover_all_groups_in_order_and_shrink_with_the_budget() -> None:
    states = [torch.empty(1, 4, 8, 8)] * 10
    groups = removed_cells(range(8))
    for graph in (True, False):
        counts = []
        for memory in (0.0, 0.5, 1.0, 2.0, math.inf):
            chunks = plan_chunks(groups, states, memory, keeps_graph=graph)
            assert [group for chunk in chunks for group in chunk] == list(groups)
            counts.append(len(chunks))
        assert counts == sorted(counts, reverse=True)
        assert counts[-1] == 1


GOLDEN = {
    "zero": (
        [15.626976698, 10.210042263, 7.704229857, 2.317997558],
        [-2.745310241, -0.513128158, 0.519453946, 2.738984453],
        [0.66011595, 0.14709783, 0.12816220, 0.51532518],
    ),
    "half": (
        [11.744961593, 11.631005673, 11.465659833, 10.986116432],
        [4.405389348, 2.662419272, 0.133433909, -7.201242529],
        [5.54227514, 3.95768571, 2.76222493, 61.61199634],
    ),
    "bypass": (
        [14.044159387, 12.894003956, 13.312520647, 2.389367751],
        [-4.626041281, -3.053808347, -3.625909915, 11.305759542],
        [4.75084541, 1.48059518, 1.84151963, 7.20549742],
    ),
}


@pytest.mark.parametrize("inactive", GOLDEN)
def test_golden_values(inactive: str) -> None:
    """The deterministic network of 4 cells: losses without each cell, ablation losses, norms of their gradients."""
    space = spaces.get("darts")
    net = fill(Supernet(space, cells=4, channels=4))
    table = torch.stack([alphas(14, 7, 0.6 * i) for i in range(4)])
    found = contributions(net, table, torch.sigmoid, images(), targets(), inactive=inactive)
    result = ablation(found.loss, found.without, found.full_gradient, found.ablated_gradient, sign="paper_plus")
    without, values, norms = (torch.tensor(row, dtype=torch.float64) for row in GOLDEN[inactive])
    torch.testing.assert_close(found.loss, torch.tensor(11.3915555753, dtype=torch.float64), rtol=1e-6, atol=0)
    torch.testing.assert_close(found.without, without, rtol=1e-6, atol=0)
    torch.testing.assert_close(result.value, values, rtol=1e-6, atol=0)
    torch.testing.assert_close(result.gradient.flatten(1).norm(dim=1), norms, rtol=1e-6, atol=0)
    full = torch.tensor([0.645949954, 0.509768094, 0.413884480, 1.604946427], dtype=torch.float64)
    torch.testing.assert_close(found.full_gradient.flatten(1).norm(dim=1), full, rtol=1e-6, atol=0)


class NeverWaits(TorchDispatchMode):
    """Fails where a value leaves the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func is not torch.ops.aten._local_scalar_dense.default, "a tensor was read on the host"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("gradient", ["exact", "stopgrad_mean", "none"])
@pytest.mark.parametrize("inactive", ["bypass", "random"])
def test_nothing_is_read_on_the_host(gradient: str, inactive: str) -> None:
    net, (x, y) = network(4, steps=1), batch(2)
    table = table_for(net, 4)
    with NeverWaits():
        found = contributions(net, table, torch.sigmoid, x, y, gradient=gradient, inactive=inactive)
        ablation(found.loss, found.without, found.full_gradient, found.ablated_gradient, gradient=gradient)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_step_can_be_captured_as_a_cuda_graph() -> None:
    net, (x, y) = network(4).float().cuda(), batch(4)
    x, y, table = x.float().cuda(), y.cuda(), table_for(net, 4).float().cuda()
    expected = contributions(net, table, torch.sigmoid, x, y)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            contributions(net, table, torch.sigmoid, x, y)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = contributions(net, table, torch.sigmoid, x, y)
    graph.replay()
    for ours, theirs in zip(dataclasses.astuple(found), dataclasses.astuple(expected), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
