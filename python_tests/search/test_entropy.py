"""The terms of DA2S: published check values to all their digits, closed forms of their gradients, and how they grow."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ddarts_ext import spaces
from ddarts_ext.genotype.configuration import Configuration
from ddarts_ext.search import methods
from ddarts_ext.search.architecture import ArchitectureParameters
from ddarts_ext.search.edge_weights import EdgeWeights
from ddarts_ext.search.entropy import CONTINUATIONS, continuation, edge_entropy, entropy, op_entropy
from ddarts_ext.search.relaxation import cubic_softmax

DARTS = spaces.get("darts")
EDGES = EdgeWeights(DARTS, Configuration(), "clamped_softmax")


def check_tables() -> tuple[Tensor, Tensor]:
    """Alphas [2, 14, 7] and betas [2, 14] of the check values."""
    number = torch.arange(98, dtype=torch.float64).view(14, 7)
    alphas = torch.stack([torch.sin(0.7 * number), torch.cos(0.7 * number)])
    normal = [0.0, 0.0, 0.9, 0.6, -0.2, 1.2, 0.3, 0.5, -0.4, 0.1, 0.2, 0.8, 1.5, -1.0]
    reduction = [0.0, 0.0, *[0.666] * 3, *[0.5] * 4, *[0.4] * 5]
    return alphas, torch.tensor([normal, reduction], dtype=torch.float64)


@pytest.mark.parametrize(
    ("epoch", "total", "op_part", "edge_part"),
    [(20, 2.63332194, 0.97333774, 1.22399682), (5, 0.69367092, 0.0, 0.25768354)],
)
def test_check_values(epoch: int, total: float, op_part: float, edge_part: float) -> None:
    method = methods.get("da2s")
    strengths = method.objectives.strengths(epoch, 50, method.architect.alpha_start)
    alphas, betas = check_tables()
    ops = strengths["op_entropy"] * op_entropy(cubic_softmax(alphas)).sum()
    edges = strengths["edge_entropy"] * edge_entropy(EDGES, betas, method.objectives.edge_count_weight).sum()
    logits = torch.tensor([[1.0, 2.0, 0.5], [0.0, -1.0, 1.0]], dtype=torch.float64)
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor([1, 2]))
    assert float(loss) == pytest.approx(0.43598737, abs=5e-9)
    assert float(ops) == pytest.approx(op_part, abs=5e-9)
    assert float(edges) == pytest.approx(edge_part, abs=5e-9)
    assert float(loss + ops + edges) == pytest.approx(total, abs=5e-9)


def test_logits_of_the_relaxation() -> None:
    """f(a) = t if t >= -1 else t^3, t = 2a: read off differences of log weights."""
    a = torch.tensor([-2, -0.6, -0.5, -0.1, 0, 0.4, 0.5, 0.9], dtype=torch.float64)
    logs = cubic_softmax(a).log()
    expected = torch.tensor([-64, -1.728, -1, -0.2, 0, 0.8, 1, 1.8], dtype=torch.float64)
    torch.testing.assert_close(logs - logs[4], expected, rtol=1e-12, atol=1e-12)


def test_strengths_of_the_published_search() -> None:
    found = {e: continuation("delayed_log", e, 50, 7) for e in (7, 8, 20, 49, 50)}
    assert found[7] == found[8] == 0.0
    assert [round(found[e], 6) for e in (20, 49, 50)] == [0.686243, 1.0, 1.006295]
    nasbench201 = methods.variant("da2s", "nasbench201")
    weights = [nasbench201.objectives.strengths(e, 50, nasbench201.architect.alpha_start) for e in (1, 16, 17, 50)]
    assert [w["op_entropy"] for w in weights] == [0, 0, 0.5 / 49, 0.5 * 34 / 49]


def test_continuations() -> None:
    at = {name: [continuation(name, e, 50, 7) for e in (1, 13, 26, 38, 50)] for name in CONTINUATIONS}
    assert at["const"] == [1] * 5
    assert at["linear"] == [(e - 1) / 49 for e in (1, 13, 26, 38, 50)]
    assert at["log"] == [math.log(e) / math.log(50) for e in (1, 13, 26, 38, 50)]
    assert at["exp"] == pytest.approx([2 ** ((e - 50) / 5) for e in (1, 13, 26, 38, 50)])
    assert at["step"] == [0, 1 / 3, 2 / 3, 1, 1]
    assert at["sigmoid"] == pytest.approx([1 / (1 + math.exp(-(e / 5 - 5))) for e in (1, 13, 26, 38, 50)])
    for name in CONTINUATIONS:
        for epochs in (1, 2, 3, 10):
            for epoch in range(1, epochs + 1):
                value = continuation(name, epoch, epochs, epochs // 5)
                assert 0 <= value <= 1.6, name
        if name.startswith("delayed"):
            assert [continuation(name, e, 50, 7) for e in range(1, 8)] == [0] * 7
            assert continuation(name, 50, 50, 7) == pytest.approx(1, abs=0.01)
    with pytest.raises(ValueError, match="a continuation must be one of"):
        continuation("square", 1, 2)


def test_op_entropy_has_the_gradient_of_its_closed_form() -> None:
    """d(-sum p ln p)/dt_k = -p_k (ln p_k + H), times dt/da: 2, or 3 t^2 2 below -1."""
    alphas = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    alphas.requires_grad_(True)
    (gradient,) = torch.autograd.grad(op_entropy(cubic_softmax(alphas)).sum(), alphas)
    p, t = cubic_softmax(alphas), 2 * alphas
    by_logit = -p * (p.log() + entropy(p).unsqueeze(-1))
    torch.testing.assert_close(gradient, by_logit * torch.where(t >= -1, 2.0, 6 * t.square()))
    assert bool((t < -1).any())
    assert bool((t > -1).any())


def test_edge_entropy_has_the_gradient_of_its_closed_form() -> None:
    """.2 * 2 (sum of positive g - 2) where 0 < b <= 1, and the entropy's on b <= 1; nothing above 1."""
    _, betas = check_tables()
    betas.requires_grad_(True)
    (gradient,) = torch.autograd.grad(edge_entropy(EDGES, betas, 0.2).sum(), betas)
    expected = torch.zeros_like(betas)
    for part in (slice(2, 5), slice(5, 9), slice(9, 14)):
        g = betas[:, part].clamp(max=1)
        q = g.softmax(-1)
        count = 0.4 * (g.relu().sum(-1, keepdim=True) - 2) * (g > 0)
        expected[:, part] = (count - q * (q.log() + entropy(q).unsqueeze(-1))) * (betas[:, part] <= 1)
    torch.testing.assert_close(gradient, expected)
    assert torch.equal(gradient[:, :2], torch.zeros(2, 2, dtype=torch.float64))


def test_entropy_of_a_weight_that_is_zero_has_a_finite_gradient() -> None:
    alphas = torch.tensor([[-40.0, 0.0, 60.0]], requires_grad=True)
    value = entropy(cubic_softmax(alphas)).sum()
    (gradient,) = torch.autograd.grad(value, alphas)
    assert float(value.detach()) == 0
    assert bool(gradient.isfinite().all())


@pytest.mark.parametrize(
    ("configuration", "competing", "start", "penalty"),
    [
        (Configuration(), (3, 4, 5), {2: 2 / 3, 5: 0.5, 9: 0.4}, (1.5 - 2) ** 2 + (2 - 2) ** 2 + (2.5 - 2) ** 2),
        (Configuration((1, 3, 2, 4)), (2, 4, 5), {0: 0.5, 5: 0.5, 9: 0.8}, 0.0 + 0.0 + (2.5 - 4) ** 2),
        (Configuration(edges_per_cell=6), (2, 3, 4, 5), dict.fromkeys((0, 2, 5, 9), 6 / 14), (7 - 6) ** 2),
    ],
)
def test_targets(
    configuration: Configuration, competing: tuple[int, ...], start: dict[int, float], penalty: float
) -> None:
    edges = EdgeWeights(DARTS, configuration, "clamped_softmax")
    assert edges.competing == competing
    betas = edges.start(2, 0.0, None, torch.float64)
    assert edges.count(betas).abs().max() < 1e-20  # on the target from the start
    for column, value in start.items():
        assert float(betas[1, column]) == pytest.approx(value)
    weights = edges.weights(betas)
    torch.testing.assert_close(weights, torch.ones_like(weights))  # equal edges weigh as in a plain sum
    half = torch.full((1, 14), 0.5, dtype=torch.float64)
    assert float(edges.count(half)) == pytest.approx(penalty)
    random = torch.randn(2, 14, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weights = edges.weights(random)
    for node in DARTS.nodes:
        columns = list(DARTS.incoming(node))
        if node in competing:
            expected = node * torch.softmax(random[:, columns].clamp(max=1), -1)
            torch.testing.assert_close(weights[:, columns], expected)
        else:
            assert torch.equal(weights[:, columns], torch.ones(2, node, dtype=torch.float64))


def test_every_cell_reads_the_betas_of_its_own_row() -> None:
    """Normal cells those of the normal row, reductions those of theirs; weights are p_o n q_i, in one tensor."""
    generator = torch.Generator().manual_seed(0)
    owner = (0, 1, 0)
    found = ArchitectureParameters(
        14, 7, owner, "cubic_softmax", initial_scale=0.5, generator=generator, dtype=torch.float64, edge_weights=EDGES
    )
    assert found.edge_table is not None
    weights = found.weights()
    for cell, row in enumerate(owner):
        p = cubic_softmax(found.table[row])
        torch.testing.assert_close(weights[cell], p * EDGES.weights(found.edge_table[row : row + 1])[0].unsqueeze(-1))
    assert not torch.allclose(weights[0], weights[1])
    leaf = found.leaf()
    (joined,) = torch.autograd.grad(found.to_weights(leaf).sin().sum(), leaf)
    alphas, betas = torch.autograd.grad(weights.sin().sum(), (found.table, found.edge_table))
    torch.testing.assert_close(joined, torch.cat((alphas, betas.unsqueeze(-1)), -1))
    found.take_gradient(joined)
    assert all(parameter.grad.is_contiguous() for parameter in found.parameters())  # type: ignore[union-attr]
    assert torch.equal(found.table.grad, alphas)  # type: ignore[arg-type]
    assert torch.equal(found.edge_table.grad, betas)  # type: ignore[arg-type]
    assert not betas[:, :2].any()
