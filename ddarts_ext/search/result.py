"""What a search found: the genotype, and how it came about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ddarts_ext.costs.judged import GenotypeCost
from ddarts_ext.genotype import Genotype
from ddarts_ext.genotype.discretisation import THRESHOLDS, discretize
from ddarts_ext.nn import recurrent
from ddarts_ext.nn.nasbench201 import NASBench201Network
from ddarts_ext.nn.network import DiscreteNetwork, build_network
from ddarts_ext.runs import html
from ddarts_ext.runs.losses import shown
from ddarts_ext.search.decisions import decisiveness
from ddarts_ext.search.limit import Limit
from ddarts_ext.search.methods import Discretisation
from ddarts_ext.search.state import SearchState
from ddarts_ext.spaces import Space
from ddarts_ext.tables.nasbench201 import Figures


@dataclass(frozen=True)
class Reading:
    """Genotypes that op weights stand for. rule: that of ``genotype``; ``note`` says why it is not the first one asked
    for, else empty. all: the genotype by every rule, also those that leave a cell without a path. cost: of
    ``genotype``, where there is a budget."""

    genotype: Genotype
    rule: str
    note: str
    all: dict[str, Genotype]
    cost: GenotypeCost | None = None


def read_from(state: SearchState, how: Discretisation, limit: Limit | None = None) -> Reading:
    """The architecture that a search stands at; within a budget where that is to be so."""
    architecture = state.architecture
    return read(
        architecture.read_weights().double().cpu(),
        state.space,
        how,
        architecture.owner,
        state.net.reductions,
        strengths=architecture.edge_table,
        limit=limit,
    )


def read(
    weights: Tensor,
    space: Space,
    how: Discretisation,
    owner: Sequence[int],
    reductions: Sequence[int] | None,
    *,
    strengths: Tensor | None = None,
    limit: Limit | None = None,
) -> Reading:
    """Discretise op weights [rows, E, O] by the first rule that gives a connected network.

    A threshold may leave a cell without any op, or one that no later cell reads, above all after a short search;
    ``darts`` keeps the best ops of every node whatever their weights, and stands in then. strengths: [rows, E] the
    betas of a method with edge weights. Where a space keeps every edge, all cells are one, and one without a path is
    one of its architectures too. limit: every rule reads within it, as far as it can, see :meth:`.Limit.within`.
    """
    every = space.selection == "every_edge"
    order = (0,) if every else owner
    rules = dict.fromkeys((*how.rules, "darts"))
    about = {"threshold": how.threshold, "seq": order, "reductions": reductions, "strengths": strengths}
    about["configuration"] = how.configuration

    def reading(rule: str) -> Callable[[Tensor], Genotype]:
        return lambda weights: _few_skips(weights, space, rule, how.max_skips, about)

    plain = {rule: reading(rule)(weights) for rule in rules}
    found = plain if limit is None else {rule: limit.within(weights, reading(rule)) for rule in rules}
    faults = {rule: "" if every else _fault(rule, genotype, how.threshold) for rule, genotype in found.items()}
    chosen = next((rule for rule, fault in faults.items() if not fault), None)
    said = next((fault for fault in faults.values() if fault), "")
    if chosen is None:
        raise ValueError(f"search: weights must leave a path through every cell, and {said}")
    note = f"{said}; {decisiveness(weights, space)}" if said else ""
    cost = None if limit is None else limit.judged(found[chosen], plain[chosen])
    return Reading(found[chosen], chosen, note, found, cost)


def _few_skips(weights: Tensor, space: Space, rule: str, most: int | None, about: dict[str, Any]) -> Genotype:
    """The genotype by a rule. While a gene of normal cells has more than ``most`` skip connections, the one of least
    weight counts as 0, and it is read again (P-DARTS, section 3.3)."""
    found = discretize(weights, space, rule, **about)  # type: ignore[arg-type]
    if most is None:
        return found
    weights, skip = weights.clone(), space.op_index("skip_connect")
    reductions = about["reductions"] if about["reductions"] is not None else space.reductions(len(found.seq))
    normal = sorted({gene for cell, gene in enumerate(found.seq) if cell not in reductions})
    for gene in normal:
        while True:
            edges = [
                space.edge_index(entry.target, entry.source)
                for entry in found.genes[gene]
                if entry.op == space.genotype_ops[skip]
                and weights[gene, space.edge_index(entry.target, entry.source), skip] > 0
            ]
            if len(edges) <= most:
                break
            weakest = min(edges, key=lambda edge: float(weights[gene, edge, skip]))
            weights[gene, weakest, skip] = 0.0
            found = discretize(weights, space, rule, **about)  # type: ignore[arg-type]
    return found


def _fault(rule: str, genotype: Genotype, threshold: float) -> str:
    """What keeps a genotype from being a connected network; empty where nothing does."""
    said = f"the rule {rule!r}" + (f" (threshold {threshold})" if rule in THRESHOLDS else "")
    empty = [cell for cell in range(genotype.layers) if not genotype.live(cell)]
    if empty:
        return f"{said} leaves {len(empty)} of {genotype.layers} cells without op"
    dead = genotype.dead_cells()
    if dead:
        cells = ", ".join(map(str, dead))
        return f"{said} leaves cells that no later one reads: {cells}"
    return ""


@dataclass(frozen=True)
class SearchResult:
    """The outcome of a search.

    genotype: the architecture, by ``rule``; ``note`` says why another rule stood in, else empty. genotypes: by every
    rule of the method. history: one record per epoch. alphas: [cells, E, O], on the CPU. run: its folder, if any.
    figures: what a table of NAS-Bench-201 says of the architecture, where one was given. metric: the name of what
    judged in the history. evaluations: of a baseline, every architecture with its score, see
    :class:`ddarts_ext.search.baseline.Evaluation`; budget: what they cost. mask: bool [cells, E, O], the ops that are
    left of a supernet that was shrunk. cost: of the architecture, where the search had a budget of costs.
    """

    genotype: Genotype
    rule: str
    note: str
    genotypes: dict[str, Genotype]
    history: list[dict[str, Any]] = field(repr=False)
    alphas: Tensor = field(repr=False)
    classes: int
    in_channels: int
    stem: str
    run: Path | None = None
    figures: Figures | None = None
    metric: str = "accuracy"
    evaluations: list[dict[str, Any]] = field(default_factory=list, repr=False)
    budget: dict[str, Any] = field(default_factory=dict)
    mask: Tensor | None = field(default=None, repr=False)
    cost: GenotypeCost | None = None

    @property
    def seconds(self) -> float:
        """What its epochs and evaluations took."""
        return float(sum(record["seconds"] for record in (*self.history, *self.evaluations)))

    def network(
        self, channels: int = 36, **options: Any
    ) -> DiscreteNetwork | NASBench201Network | recurrent.LanguageModel:
        """The network with this architecture, not yet trained. options: of :func:`build_network`; for a recurrent cell
        of :func:`ddarts_ext.nn.recurrent.of_genotype`, with ``channels`` its hidden units."""
        if self.genotype.recurrent:
            return recurrent.of_genotype(self.genotype, self.classes, channels, **options)
        settings = {"classes": self.classes, "in_channels": self.in_channels, "stem": self.stem, **options}
        return build_network(self.genotype, channels=channels, **settings)

    def _repr_html_(self) -> str:
        """What was found, its metric over epochs and the cells, for notebooks."""
        judged = next(
            (record["valid"].get(self.metric) for record in reversed(self.history) if "valid" in record), None
        )
        rows = [
            ("cells", self.genotype.layers),
            ("read by the rule", self.rule),
            ("note", self.note),
            ("epochs", len(self.history)),
            ("cost", self.cost),
            ("evaluated", self.budget.get("architectures")),
            ("the supernet in validation", None if judged is None else shown(self.metric, judged, 2)),
            ("NAS-Bench-201", self.figures),
            ("run", self.run),
        ]
        curve = html.over_epochs(self.history, self.metric, {"train": "training", "valid": "validation"})
        return html.table(rows) + curve + self.genotype._repr_html_()
