"""The expected cost of the architecture that op weights stand for, and the budget that it is held against."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ddarts_ext.costs import CostBudget, Costs, LatencyTable, NetworkSizes, counted_costs
from ddarts_ext.data import Dataset
from ddarts_ext.genotype.configuration import Configuration
from ddarts_ext.search.architecture import ArchitectureParameters, owners
from ddarts_ext.search.settings import SearchSettings
from ddarts_ext.spaces import Space


@dataclass(frozen=True)
class Kept:
    """How much of a cell a rule keeps. Of the edges of each group together ``counts`` ops stay, or at most so many."""

    groups: tuple[tuple[int, ...], ...]
    counts: tuple[int, ...]
    at_most: bool

    @classmethod
    def by(cls, rule: str, space: Space, configuration: Configuration) -> Kept:
        """What :func:`ddarts_ext.genotype.discretize` leaves by a rule."""
        edges = tuple((edge,) for edge in range(len(space.edges)))
        nodes = tuple(space.incoming(node) for node in space.nodes)
        if space.selection == "every_edge":
            return cls(edges, (1,) * len(edges), at_most=False)
        if rule in ("edge", "complete"):
            return cls(edges, (2 if rule == "edge" else len(space.choices),) * len(edges), at_most=True)
        if rule == "configuration":
            ops = configuration.ops_per_edge
            if configuration.edges_per_cell:
                return cls((tuple(range(len(edges))),), (configuration.edges_per_cell * ops,), at_most=False)
            return cls(nodes, tuple(count * ops for count in configuration.kept(space)), at_most=False)
        return cls(nodes, tuple(min(2, node) for node in space.nodes), at_most=rule == "sparse")


class ExpectedCost:
    """The cost of what op weights stand for, as a differentiable function of them, in parts of the budget.

    An op is kept with p = k w / S, where S is the sum of the weights of its group (the ops on all edges into a node,
    ``none`` left out) and k the number of them that the rule keeps: p adds up to as many ops as stay. By a rule that
    keeps at most so many p = w min(1, k / S). So p of an architecture, of whose ops each weighs 1 and all others 0, is
    that architecture, and of equal weights its mean over all.
    """

    def __init__(self, costs: Costs, amount: float, kept: Kept, device: torch.device) -> None:
        space = costs.sizes.space
        self.at_most = kept.at_most
        self.constant = costs.constant / amount
        member = torch.zeros(len(kept.groups), len(space.edges))
        for group, edges in zip(member, kept.groups, strict=True):
            group[list(edges)] = 1.0
        chosen = torch.zeros(len(space.ops))
        chosen[range(len(space.ops)) if space.selection == "every_edge" else list(space.choices)] = 1.0
        self.table = (costs.table / amount).float().to(device)
        self.member, self.chosen = member.to(device), chosen.to(device)
        self.counts = torch.tensor(kept.counts, dtype=torch.float32).to(device)

    def kept(self, weights: Tensor) -> Tensor:
        """p [rows, E, O] of op weights [rows, E, O]."""
        weights = weights * self.chosen
        sums = weights.sum(-1) @ self.member.T
        scale = self.counts / sums.clamp_min(torch.finfo(sums.dtype).tiny)
        if self.at_most:
            scale = scale.clamp_max(1.0)
        return weights * (scale @ self.member).unsqueeze(-1)

    def of_rows(self, weights: Tensor) -> Tensor:
        """[rows] the cost of the ops of every row of weights [rows, E, O], over the budget; without the constant."""
        return (self.kept(weights.float()) * self.table).sum((-2, -1))

    def at(self, architecture: ArchitectureParameters, leaf: Tensor) -> Tensor:
        """The same at alphas (and betas) like :meth:`.ArchitectureParameters.leaf`."""
        weights = architecture.relax(architecture.alphas(leaf))
        if architecture.edge_weights is not None:
            weights = weights * architecture.edge_weights.weights(leaf[..., -1]).unsqueeze(-1)
        return self.of_rows(weights)


def sizes_of(settings: SearchSettings, dataset: Dataset) -> NetworkSizes:
    """Whose cost counts: the network as deep and wide as the supernet, in the last of several stages, unless
    ``budget_cells`` and ``budget_channels`` say otherwise."""
    method, space = settings.method, settings.space()
    cells = settings.budget_cells or method.cells + (method.stages.stage_cells or (0,))[-1]
    reductions = space.reductions(cells) if settings.reductions is None else settings.reductions
    sharing = "normal_reduction" if settings.budget_cells is not None else method.sharing
    return NetworkSizes(
        space,
        cells,
        settings.budget_channels or method.channels,
        len(dataset.classes),
        dataset.channels,
        dataset.size,
        settings.stem,
        tuple(sorted(set(reductions))),
        owners(sharing, cells, reductions, settings.sequence),
    )


def costs_of(settings: SearchSettings, dataset: Dataset) -> tuple[CostBudget, Costs]:
    """The budget of a search, and what architectures cost. Raises ValueError for one that no architecture can meet."""
    assert settings.budget is not None
    budget, sizes = CostBudget.parse(settings.budget), sizes_of(settings, dataset)
    if budget.kind == "latency":
        assert settings.latency_table is not None
        times = LatencyTable.load(settings.latency_table)
        times.check(sizes, settings.latency_table)
        costs = times.costs()
    else:
        costs = counted_costs(budget.kind, sizes)
    how = settings.method.discretisation
    least, most = costs.range(how.rules[0], how.configuration)  # type: ignore[arg-type]
    if budget.amount < least:
        raise ValueError(
            f"search: budget must be at least {CostBudget(budget.kind, least)}, what the cheapest architecture of "
            f"{sizes.cells} cells and {sizes.channels} channels costs (the dearest {CostBudget(budget.kind, most)}), "
            f"got {budget}"
        )
    return budget, costs
