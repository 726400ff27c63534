"""The measure of a supernet's ops: published values, and what it must not depend on."""

import pytest
import torch
from nn.golden import fill, images
from torch import Tensor

from ddarts_ext import ops, spaces
from ddarts_ext.nn import NASBench201Supernet, NodeKey, Pass, Supernet
from ddarts_ext.search.shrinking.measure import average, badness, growing, measured
from ddarts_ext.search.shrinking.steps import shrink


@pytest.fixture(scope="module")
def nasbench() -> tuple[NASBench201Supernet, Tensor]:
    return fill(NASBench201Supernet(4, 1)), torch.full((3, 6, 5), 0.2, dtype=torch.float64)


def two_batches() -> list[Tensor]:
    return [images(), images(phase=0.9)]


def test_published_scores_and_first_steps(nasbench: tuple[NASBench201Supernet, Tensor]) -> None:
    """A fresh network, two batches: the scores of three edges, and `none`, then pooling removed on every edge."""
    net, weights = nasbench
    scores = average(measured(net, weights, two_batches(), (0, 0, 0)))
    assert scores.shape == (1, 6, 5)
    assert scores[..., 0].isinf().all()
    for edge, expected in (
        (0, (2621.929, 142.22754, 340.01644, 13198084)),
        (2, (11403.909, 169.33797, 350.06556, 70634.105)),
        (5, (2147.2067, 812.11015, 330.15085, 4098.5166)),
    ):
        torch.testing.assert_close(scores[0, edge, 1:], torch.tensor(expected, dtype=torch.float64), rtol=2e-6, atol=0)
    space = spaces.get("nasbench201")
    first = shrink(torch.ones(1, 6, 5, dtype=torch.bool), badness(scores, "code"), space, 4)
    assert (~first).nonzero()[:, 2].tolist() == [0] * 6
    second = shrink(first, badness(scores, "code"), space, 3)
    assert (first & ~second).nonzero()[:, 2].tolist() == [4] * 6


def test_published_value_of_one_map() -> None:
    x = torch.sin(0.37 * torch.arange(72, dtype=torch.float64) ** 2).view(2, 4, 3, 3)
    code = ops.channel_iim([x]).mean()
    paper = ops.channel_iim([x], form="paper")[0]
    torch.testing.assert_close(code, torch.tensor(392.9372689971, dtype=torch.float64), rtol=1e-10, atol=0)
    expected = torch.tensor([8.874596986e-4, 2.24750746e-3], dtype=torch.float64)
    torch.testing.assert_close(paper, expected, rtol=1e-8, atol=0)


def test_scores_are_those_of_the_tensors_that_are_summed(nasbench: tuple[NASBench201Supernet, Tensor]) -> None:
    """Every branch as the sum sees it, normalised with the batch's statistics, averaged over samples and cells."""
    net, weights = nasbench
    rows: dict[int, list[Tensor]] = {column: [] for column in range(30)}

    def observe(key: NodeKey, branches: list[Tensor], mean: Tensor, rstd: Tensor, normalize: list[bool]) -> None:
        for k, column in enumerate(key.columns):
            value = branches[k]
            if normalize[k]:
                value = torch.nn.functional.batch_norm(value, None, None, training=True)
            variance = value.var(1, unbiased=True)
            channels = value.shape[1]
            rows[column].append(3 * (channels - 1) / channels * variance.pow(-2).mean((1, 2)))

    net.eval()
    with torch.no_grad():
        for batch in two_batches():
            net(batch, weights, Pass(statistics="running", observe=observe))  # type: ignore[arg-type]
    scores = average(measured(net, weights, two_batches(), (0, 0, 0))).flatten()
    for column, values in rows.items():
        if values:
            torch.testing.assert_close(scores[column], torch.cat(values).mean(), rtol=1e-9, atol=0)


def test_cells_of_a_type_share_a_row() -> None:
    """DARTS space: normal and reduction cells are scored apart; the mean runs over the cells of each."""
    net = fill(Supernet(spaces.get("isdarts"), 5, 4))
    weights = torch.full((5, 14, 8), 1 / 8, dtype=torch.float64)
    apart = average(measured(net, weights, [images()], range(5)))
    types = average(measured(net, weights, [images()], (0, 1, 0, 1, 0)))
    torch.testing.assert_close(types[0], apart[[0, 2, 4]].mean(0))
    torch.testing.assert_close(types[1], apart[[1, 3]].mean(0))


def test_measuring_changes_nothing(nasbench: tuple[NASBench201Supernet, Tensor]) -> None:
    net, weights = nasbench
    net.train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    average(measured(net, weights, [images()], (0, 0, 0)))
    assert net.training
    for name, tensor in net.state_dict().items():
        assert torch.equal(before[name], tensor), name


def test_paper_form_keeps_the_largest(nasbench: tuple[NASBench201Supernet, Tensor]) -> None:
    """Per sample both forms order ops alike; `none` is the worst by both."""
    net, weights = nasbench
    one = [images()[:1].expand(2, -1, -1, -1)]  # equal samples: the mean over them is each of them
    # Over several cells or samples the two means may differ: every cell has a row of its own here.
    cells = {form: average(measured(net, weights, one, (0, 1, 2), form=form)) for form in ("code", "paper")}
    orders = [badness(cells[form], form).argsort(dim=-1, stable=True) for form in ("code", "paper")]
    assert torch.equal(*orders)
    assert (cells["paper"][..., 0] == 0).all()


def test_growing_ends_with_the_average(nasbench: tuple[NASBench201Supernet, Tensor]) -> None:
    net, weights = nasbench
    sizes, scores = growing(measured(net, weights, two_batches(), (0, 0, 0)))
    assert sizes == [1, 2, 3, 5, 7, 8]
    assert scores.shape == (6, 1, 6, 5)
    torch.testing.assert_close(scores[-1], average(measured(net, weights, two_batches(), (0, 0, 0))))


def test_no_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="measure: there must be at least one sample"):
        average([])
