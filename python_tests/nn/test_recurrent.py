"""The recurrent cell: the published network's numbers, the equations one by one, masks, penalties and gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ddarts_ext import create_model, list_models, spaces
from ddarts_ext.genotype import Genotype, architectures
from ddarts_ext.genotype.files import image_architectures
from ddarts_ext.nn.forward_pass import Pass
from ddarts_ext.nn.recurrent import Dropout, LanguageModel, Output, RecurrentCell, of_genotype, supernet
from ddarts_ext.nn.recurrent.dropout import mask

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "identity": lambda h: h,
}
SPACE = spaces.get("rnn")
V1 = Genotype.load("DARTS_V1_RNN")


def entries(rows: int, columns: int, shift: float) -> Tensor:
    r, c = torch.arange(1, rows + 1).double()[:, None], torch.arange(1, columns + 1).double()
    return 0.4 * torch.sin(0.37 * r * c + shift)


def filled(cell: RecurrentCell) -> RecurrentCell:
    """Weights by the rule of the golden vectors."""
    cell = cell.double()
    with torch.no_grad():
        cell.first.copy_(entries(*cell.first.shape, 0.0))
        for node, matrix in enumerate(cell.nodes):
            matrix.copy_(entries(*matrix.shape, 0.2 * (node + 1)))
    return cell


def golden_inputs() -> tuple[Tensor, Tensor]:
    return torch.sin(0.9 * torch.arange(24).double()).view(3, 2, 4), torch.full((2, 4), 0.1).double()


def softmax_of_rule() -> Tensor:
    k, o = torch.arange(36).double()[:, None], torch.arange(5).double()
    return (0.5 * torch.sin(7 * k + 1.3 * o)).softmax(-1)


def by_hand(
    cell: RecurrentCell, inputs: Tensor, hidden: Tensor, weights: list[list[dict[str, Tensor]]], norm: bool
) -> tuple[Tensor, Tensor]:
    """The equations as they are written; weights: per node and source, what each activation is mixed by."""
    width, outputs = cell.hidden, []

    def normalised(s: Tensor) -> Tensor:
        return F.batch_norm(s, None, None, training=True) if norm else s

    for x in inputs:
        both = torch.cat((x, hidden), 1) @ cell.first
        states = [normalised(hidden + both[:, :width].sigmoid() * (both[:, width:].tanh() - hidden))]
        for node, of_sources in enumerate(weights):
            total = torch.zeros_like(hidden)
            for source, of_ops in enumerate(of_sources):
                both = states[source] @ cell.nodes[node]
                for name, weight in of_ops.items():
                    candidate = FUNCTIONS[name](both[:, width:])
                    total = total + weight * (states[source] + both[:, :width].sigmoid() * (candidate - states[source]))
            states.append(normalised(total))
        hidden = torch.stack([states[node] for node in cell.output]).mean(0)
        outputs.append(hidden)
    return torch.stack(outputs), hidden


def test_the_published_architectures_cell_gives_its_published_output() -> None:
    cell = filled(of_genotype(V1, 3, 4).cell)
    inputs, hidden = golden_inputs()
    outputs, last = cell(inputs, hidden)
    expected = [
        [0.02058435305, 0.009286846234, 0.03344481241, 0.02173599645],
        [-0.02459639259, 0.00641641116, -0.008042705627, -0.003490053667],
    ]
    torch.testing.assert_close(last, torch.tensor(expected).double(), rtol=1e-6, atol=1e-9)
    assert torch.equal(outputs[-1], last)


def test_the_search_cell_gives_the_published_codes_output() -> None:
    net = supernet(SPACE, 3, 4)
    filled(net.cell)
    inputs, hidden = golden_inputs()
    mixing = net._mixing(softmax_of_rule()[None])
    expected = [
        [1.105743435, 1.39002059, 1.549076089, 1.450927449],
        [0.7350158467, 1.950371991, 2.137637536, 2.211171436],
    ]
    found = net.cell(inputs, hidden, mixing, p=Pass(statistics="running"))[1]
    torch.testing.assert_close(found, torch.tensor(expected).double(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("genotype", "words", "hidden", "count"),
    [
        (V1, 10_000, 850, 22_960_000),
        (Genotype.load("DARTS_V2_RNN"), 10_000, 850, 22_960_000),
        (V1, 33_278, 700, 33_127_878),
        (None, 10_000, 300, 4_810_000),
    ],
)
def test_parameters_are_the_published_ones(genotype: Genotype | None, words: int, hidden: int, count: int) -> None:
    with torch.device("meta"):
        net = supernet(SPACE, words, hidden) if genotype is None else of_genotype(genotype, words, hidden)
    assert sum(parameter.numel() for parameter in net.parameters()) == count


def test_values_gradients_and_second_derivatives_of_the_search_cell_are_those_of_its_equations() -> None:
    space = spaces.get("rnn", steps=3)
    net = supernet(space, 3, 3)
    cell = filled(net.cell)
    inputs, hidden = torch.randn(2, 4, 3).double(), torch.randn(4, 3).double()
    table = torch.randn(1, len(space.edges), 5).double().requires_grad_()
    leaves = [cell.first, cell.nodes, table]

    def ours() -> Tensor:
        return cell(inputs, hidden, net._mixing(table.softmax(-1)), p=Pass(statistics="batch"))[0]

    def naive() -> Tensor:
        rows = iter(table.softmax(-1)[0])
        weights = [
            [dict(zip(spaces.ACTIVATIONS, next(rows)[1:], strict=True)) for _ in range(node)] for node in space.nodes
        ]
        return by_hand(cell, inputs, hidden, weights, norm=True)[0]

    torch.testing.assert_close(ours(), naive())
    products = []
    for function in (ours, naive):
        slopes = torch.autograd.grad(function().cos().sum(), leaves, create_graph=True)
        second = torch.autograd.grad(torch.stack([slope.square().sum() for slope in slopes]).sum(), leaves)
        products.append([*slopes, *second])
    for found, expected in zip(*products, strict=True):
        torch.testing.assert_close(found, expected)


def test_a_discrete_cell_is_that_of_its_equations_and_its_nodes_may_have_several_ops() -> None:
    genes = ((("relu", 1, 0), ("tanh", 1, 0), ("sigmoid", 2, 1), ("identity", 2, 0), ("tanh", 3, 2)),)
    genotype = Genotype(genes, concat=(1, 3), inputs=1, reductions=(), steps=3)
    cell = filled(of_genotype(genotype, 3, 3).cell)
    one = torch.ones(()).double()
    weights = [
        [{"relu": one, "tanh": one}],
        [{"identity": one}, {"sigmoid": one}],
        [{}, {}, {"tanh": one}],
    ]
    inputs, hidden = torch.randn(3, 4, 3).double(), torch.randn(4, 3).double()
    torch.testing.assert_close(cell(inputs, hidden), by_hand(cell, inputs, hidden, weights, norm=False))


def test_only_a_pass_that_updates_moves_running_statistics() -> None:
    net = supernet(SPACE, 5, 4)
    weights = torch.rand(1, 36, 5).softmax(-1)
    words, hidden = torch.randint(5, (2, 3)), net.start(3)
    before = net.cell.norm.running_mean.clone()  # type: ignore[union-attr]
    for statistics in ("batch", "running"):
        net(words, hidden, weights, Pass(statistics=statistics))  # type: ignore[arg-type]
        assert torch.equal(net.cell.norm.running_mean, before)  # type: ignore[union-attr]
    net(words, hidden, weights, Pass())
    assert not torch.equal(net.cell.norm.running_mean, before)  # type: ignore[union-attr]


def test_masks_are_zero_at_their_rate_and_keep_the_mean() -> None:
    found = mask((1000, 1000), 0.75, torch.ones(()), torch.Generator().manual_seed(0))
    assert found is not None
    assert set(found.unique().tolist()) == {0.0, 4.0}
    assert abs(float(found.mean()) - 1) < 0.01
    assert mask((3,), 0.0, torch.ones(()), None) is None


def test_dropout_is_the_same_at_all_steps_and_only_where_it_is_asked_for() -> None:
    torch.manual_seed(0)
    net = of_genotype(V1, 7, 16, Dropout(output=0.5))
    words, hidden = torch.zeros(5, 2, dtype=torch.long), net.start(2)
    plain = net(words, hidden)
    assert plain.dropped is plain.states
    found = net(words, hidden, masks=net.masks(2, torch.Generator().manual_seed(0)))
    torch.testing.assert_close(found.states, plain.states)
    zero = found.dropped == 0
    assert 0 < zero[0].float().mean() < 1
    assert bool((zero == zero[0]).all())
    torch.testing.assert_close(found.dropped[~zero], 2 * found.states[~zero])


def test_dropped_words_are_dropped_wherever_they_stand() -> None:
    net = of_genotype(V1, 50, 8, Dropout(words=0.5))
    words = torch.arange(50).repeat(2, 1)
    draws = mask((50, 1), 0.5, net.encoder.weight, torch.Generator().manual_seed(3))
    assert draws is not None
    with torch.no_grad():
        found = net(words, net.start(50), masks=net.masks(50, torch.Generator().manual_seed(3)))
        net.encoder.weight.mul_(draws)
        expected = net.cell(F.embedding(words, net.encoder.weight), net.start(50))[0]
    torch.testing.assert_close(found.states, expected)


def test_penalties_are_those_of_the_equations() -> None:
    states, dropped, logits = torch.randn(4, 3, 5), torch.randn(4, 3, 5), torch.randn(4, 3, 7)
    targets = torch.randint(7, (4, 3))
    total, plain = Output(logits, states[-1], states, dropped).loss(targets, activation=2.0, slowness=3.0)
    torch.testing.assert_close(plain, F.cross_entropy(logits.view(12, 7), targets.view(12)))
    penalties = 2 * dropped.pow(2).mean() + 3 * (states[1:] - states[:-1]).pow(2).mean()
    torch.testing.assert_close(total, plain + penalties)


def test_the_decoder_is_the_embedding() -> None:
    net = of_genotype(V1, 7, 4)
    assert {name for name, _ in net.named_parameters()} == {"encoder.weight", "bias", "cells.0.first", "cells.0.nodes"}
    out = net(torch.zeros(1, 2, dtype=torch.long), net.start(2))
    torch.testing.assert_close(out.logits, out.dropped @ net.encoder.weight.t() + net.bias)


def test_what_is_no_recurrent_cell_is_refused() -> None:
    with pytest.raises(ValueError, match="genotype must be that of a recurrent cell, got ops"):
        of_genotype(Genotype.load("DARTS_V1"), 7, 4)
    with pytest.raises(ValueError, match=r"must have an op for every node, got none for \[2\]"):
        of_genotype(Genotype(((("relu", 1, 0), ("tanh", 3, 1)),), concat=(1, 2, 3), inputs=1, reductions=()), 7, 4)
    with pytest.raises(ValueError, match="ops must be none, tanh"):
        supernet(spaces.get("darts"), 7, 4)
    with pytest.raises(ValueError, match="inputs must be as wide as hidden, 4, got 3"):
        LanguageModel(7, RecurrentCell(3, 4, [(0,)], [("relu",)], (1,)))


def test_networks_for_images_are_none_of_recurrent_cells() -> None:
    every = {name: Genotype.load(name).recurrent for name in architectures()}
    assert set(image_architectures()) == {name for name, recurrent in every.items() if not recurrent}
    assert set(list_models()) == set(image_architectures())
    with pytest.raises(ValueError, match="genotype must be that of a network for images, got a recurrent cell"):
        create_model("DARTS_V2_RNN")
