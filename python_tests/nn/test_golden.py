"""Vectors measured on the reference implementations in float64, held to 1e-6 relative."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from nn.golden import alphas, close, fill, images, targets
from torch import Tensor

from ddarts_ext import ops, spaces
from ddarts_ext.genotype import Genotype
from ddarts_ext.nn import Cell, DiscreteNetwork, NASBench201Supernet, NodeKey, Pass, Supernet


def cross_entropy(logits: Tensor) -> Tensor:
    return F.cross_entropy(logits, targets())


def test_darts_supernet() -> None:
    net = fill(Supernet(spaces.get("darts_none"), 8, 4))
    normal, reduce = (alphas(14, 8, shift).requires_grad_() for shift in (0.0, 1.0))
    weights = torch.stack([reduce if i in net.reductions else normal for i in range(8)]).softmax(-1)
    logits = net(images(), weights)
    loss = cross_entropy(logits)
    loss.backward()
    close(loss, 3.8344226024)
    close(logits[0], [-1.152418809, -0.2964164957, -2.232956167, 0.8150948132, 0.1179203876,
                      0.9191050692, 7.258626294, 0.01729049275, -0.4170448259, -2.638603629])  # fmt: skip
    assert normal.grad is not None
    assert reduce.grad is not None
    close(normal.grad[0], [-0.01882100201, 0.1036063971, -0.04637756893, -0.01279393882,
                           0.03292741335, -0.04606545276, -0.04144218172, 0.02896633382])  # fmt: skip
    close(normal.grad[13], [-0.03846713628, -0.01594999323, -0.01388111645, 0.03958378438,
                            0.05046562384, -0.03042728135, -0.01721737843, 0.02589349753])  # fmt: skip
    close(torch.stack((normal.grad.norm(), reduce.grad.norm())), [0.3673437226, 0.1860391679])


def test_darts_evaluation_network_with_auxiliary_head() -> None:
    net = fill(DiscreteNetwork(Genotype.load("DARTS_V2", layers=8), 6, auxiliary=True))
    logits, auxiliary = net.forward_auxiliary(images(side=32))
    close(logits[0], [1.65315229, -1.134331403, -1.11618362, -0.7795665833, 1.441369615,
                      -2.432457134, 4.827450133, 0.1994352182, 0.2943787699, -0.1107985435])  # fmt: skip
    close(logits.abs().sum(), 29.3914816464)
    close(auxiliary[0], [1.121609004, 0.8541437028, -0.4385162514, -0.841990411, 0.8372604768,
                         -0.3080739236, 2.359293243, -0.6085762386, 1.248146239, 0.2154303741])  # fmt: skip


def test_threshold_evaluation_network() -> None:
    net = fill(DiscreteNetwork(Genotype.load("D-DARTS_sparse_abl0.5_fair7_cifar100"), 6))
    logits = net(images())
    close(logits[0], [0.09306950256, -0.7050302554, 0.6886707419, 0.4071525955, -0.08974687871,
                      -0.3097499118, 0.9175676725, 0.1902533584, 0.3247531495, -0.7345119699])  # fmt: skip
    close(logits.abs().sum(), 28.1386250472)


class IndividualCells:
    """D-DARTS: four cells with alphas of their own; the whole network, run once for all tests."""

    def __init__(self) -> None:
        self.net = fill(Supernet(spaces.get("darts"), 4, 4))
        self.table = torch.stack([alphas(14, 7, 0.6 * i) for i in range(4)]).requires_grad_()
        self.weights = self.table.sigmoid()
        self.logits = self.net(images(), self.weights, Pass(statistics="batch"))
        self.loss, self.gradient = self.differentiate(cross_entropy(self.logits))

    def differentiate(self, loss: Tensor) -> tuple[Tensor, Tensor]:
        return loss.detach(), torch.autograd.grad(loss, self.table, retain_graph=True)[0]


@pytest.fixture(scope="module")
def cells() -> IndividualCells:
    return IndividualCells()


def test_individual_cells(cells: IndividualCells) -> None:
    assert cells.net.reductions == (1, 2)
    close(cells.loss, 11.3915555753)
    close(cells.logits[0], [-5.342029823, -1.091554139, -3.5925886, -0.3502852941, -4.456940942,
                            16.28363484, 33.57261422, 10.20169304, -5.970624599, -6.278194635])  # fmt: skip
    close(cells.gradient.flatten(1).norm(dim=1), [0.645949954, 0.509768094, 0.413884480, 1.604946427])


def without(net: Supernet, weights: Tensor, index: int, inactive: str) -> Tensor:
    """The loss of the network whose cell ``index`` is inactive."""
    p = Pass(statistics="batch")
    s0, s1 = net.stem_states(images(), p)
    for i, cell in enumerate(net.cells):
        assert isinstance(cell, Cell)
        if i != index:
            out = cell(s0, s1, weights[i], p)
        elif inactive == "bypass":
            out = cell.removed(s1, p)
        else:
            out = cell(s0, s1, torch.full_like(weights[i], 0.5 if inactive == "half" else 0.0), p)
        s0, s1 = s1, out
    return cross_entropy(net.head(s1, p))


@pytest.mark.parametrize(
    ("inactive", "losses", "contributions", "norms"),
    [
        ("zero", (15.626976698, 10.210042263, 7.704229857, 2.317997558),
         (-2.745310241, -0.513128158, 0.519453946, 2.738984453), (0.66011595, 0.14709783, 0.12816220, 0.51532518)),
        ("half", (11.744961593, 11.631005673, 11.465659833, 10.986116432),
         (4.405389348, 2.662419272, 0.133433909, -7.201242529), (5.54227514, 3.95768571, 2.76222493, 61.61199634)),
        ("bypass", (14.044159387, 12.894003956, 13.312520647, 2.389367751),
         (-4.626041281, -3.053808347, -3.625909915, 11.305759542), (4.75084541, 1.48059518, 1.84151963, 7.20549742)),
    ],
)  # fmt: skip
def test_marginal_contributions(
    cells: IndividualCells,
    inactive: str,
    losses: Sequence[float],
    contributions: Sequence[float],
    norms: Sequence[float],
) -> None:
    """A_i = (M_i - mean M) / mean M with M_i = L - L without cell i, and its gradient by autograd."""
    found = [cells.differentiate(without(cells.net, cells.weights, i, inactive)) for i in range(4)]
    values = torch.stack([cells.loss, *(loss for loss, _ in found)]).requires_grad_()
    slopes = torch.stack([cells.gradient, *(gradient for _, gradient in found)])
    marginal = values[0] - values[1:]
    relative = (marginal - marginal.mean()) / marginal.mean()
    chain = [torch.autograd.grad(relative[i], values, retain_graph=True)[0] for i in range(4)]
    gradients = [torch.tensordot(chain[i], slopes[:, i], dims=1).norm() for i in range(4)]
    close(values[1:], losses)
    close(relative, contributions)
    close(torch.stack(gradients), norms)


class Scores:
    """Mean over cells and samples of the information measure of every op; ``none`` is infinite."""

    def __init__(self, entries: int) -> None:
        self.total = torch.full((entries,), torch.inf, dtype=torch.float64)
        self.samples = torch.zeros(entries)

    def __call__(
        self, key: NodeKey, branches: Sequence[Tensor], mean: Tensor, rstd: Tensor, normalize: Sequence[bool]
    ) -> None:
        found = ops.channel_iim(branches, mean=mean, rstd=rstd, normalize=normalize)
        for column, values in zip(key.columns, found, strict=True):
            self.total[column] = values.sum() + (self.total[column] if self.samples[column] else 0.0)
            self.samples[column] += values.numel()

    def table(self) -> Tensor:
        return (self.total / self.samples.clamp_min(1)).view(6, 5)


def test_nasbench201_supernet() -> None:
    net = fill(NASBench201Supernet(4, 1))
    logits = net(images(), torch.full((3, 6, 5), 0.2, dtype=torch.float64))
    close(cross_entropy(logits), 2.5588667002)
    close(logits[0], [1.252129164, 0.6982081432, -1.180496443, 1.371417317, -0.6180008887,
                      -1.11827855, 0.5407166849, 1.344552239, 0.7676180754, -0.9587525172])  # fmt: skip


def test_information_measure_of_nasbench201() -> None:
    """A fresh model in eval mode: norms of cells use the statistics of the batch, all others the running ones."""
    net, scores = fill(NASBench201Supernet(4, 1)).eval(), Scores(30)
    with torch.no_grad():
        for phase in (0.0, 0.9):
            weights = torch.full((3, 6, 5), 0.2, dtype=torch.float64)
            net(images(phase=phase), weights, Pass(statistics="running", observe=scores))
    table = scores.table()
    assert table[:, 0].isinf().all()
    # The published figures have seven or eight digits.
    for edge, expected in (
        (0, (2621.929, 142.22754, 340.01644, 13198084)),
        (2, (11403.909, 169.33797, 350.06556, 70634.105)),
        (5, (2147.2067, 812.11015, 330.15085, 4098.5166)),
    ):
        torch.testing.assert_close(table[edge, 1:], torch.tensor(expected, dtype=torch.float64), rtol=2e-6, atol=0)
    order = table.argsort(dim=1, descending=True, stable=True)
    assert order[:, 0].tolist() == [0] * 6
    assert order[:, 1].tolist() == [4] * 6


def test_isdarts_supernet() -> None:
    net = fill(Supernet(spaces.get("isdarts"), 5, 4))
    assert net.reductions == (1, 3)
    logits = net(images(), torch.full((5, 14, 8), 1 / 8, dtype=torch.float64))
    close(cross_entropy(logits), 2.9120534748)
    close(logits[0], [0.29767674, 0.06386394477, -0.07942077172, -0.06967544134, -0.08258308088,
                      0.1038192776, 4.237338604, 0.8105175287, 0.05220911, -0.276266444])  # fmt: skip


def test_fill_leaves_norms_neutral() -> None:
    net = fill(DiscreteNetwork(Genotype.load("DARTS_V2", layers=2), 4))
    ones = [module.weight for module in net.modules() if hasattr(module, "running_mean") and module.weight is not None]
    assert ones
    assert all(bool((weight == 1).all()) for weight in ones)
