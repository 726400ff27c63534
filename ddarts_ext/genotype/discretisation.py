"""From architecture weights to a genotype."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from ddarts_ext.genotype.cell import Cell, Gene
from ddarts_ext.genotype.configuration import Configuration
from ddarts_ext.genotype.value import Genotype
from ddarts_ext.spaces import Space

Rule = Literal["darts", "edge", "sparse", "complete", "configuration"]
THRESHOLDS = ("edge", "sparse", "complete")
"""Rules that look at a threshold."""
Table = npt.NDArray[np.float64]


def discretize(
    weights: Any,
    space: Space,
    rule: Rule = "edge",
    *,
    threshold: float = 0.85,
    seq: Sequence[int] | None = None,
    reductions: Sequence[int] | None = None,
    configuration: Configuration | None = None,
    strengths: Any = None,
) -> Genotype:
    """The architecture that the relaxed weights [rows, edges, ops] stand for.

    weights: softmax or sigmoid of the architecture parameters, array or tensor of any float dtype, rows in the order
    of `space.edges` and `space.ops`. seq: the row of each cell where cells share rows (DARTS: normal and reduction);
    one row per cell when left out. reductions: the reduction cells, at thirds when left out. `none` is never chosen,
    but where a space keeps every edge (NAS-Bench-201).

    * `darts` (DARTS, 2.4): per node the two incoming edges of largest best op, in descending order; on each the best
      op. Where a space keeps every edge, the best op of each edge, `none` included; in that of recurrent cells one
      incoming edge.
    * `edge` (FairDARTS): on each edge the two largest ops, in ascending order, that reach the threshold.
    * `sparse` (FairDARTS): as `darts`, each op only if it reaches the threshold.
    * `complete`: every op that reaches the threshold.
    * `configuration` (DA2S): per node as many of the strongest incoming edges as `configuration` says, by default two,
      in descending order; on each as many of the largest ops. strengths: [rows, edges], the edge weights, by default
      the weight of an edge's best op.

    Ties go to the lower source, then to the earlier op. In `edge`, a tie for the second place goes to the later op,
    as ascending stable sort leaves it.
    """
    if rule not in get_args(Rule):
        raise ValueError(f"discretize: rule must be one of {', '.join(get_args(Rule))}, got {rule!r}")
    tables = _as_array(weights)
    expected = (len(space.edges), len(space.ops))
    if tables.ndim != 3 or tables.shape[1:] != expected or not len(tables):
        raise ValueError(
            f"discretize: weights must be [rows, edges, ops]=[rows, {expected[0]}, {expected[1]}], "
            f"got {list(tables.shape)}"
        )
    if not np.isfinite(tables).all():
        raise ValueError("discretize: weights must be finite, got NaN or infinity")
    if rule == "configuration" and space.selection != "every_edge":
        target = Configuration() if configuration is None else configuration
        target.check(space, "discretize")
        genes = tuple(
            _configured(table, edges, space, target)
            for table, edges in zip(tables, _strengths(strengths, tables, space), strict=True)
        )
    else:
        genes = tuple(_cell(table, space, "darts" if rule == "configuration" else rule, threshold) for table in tables)
    order = tuple(range(len(genes))) if seq is None else tuple(seq)
    if reductions is None and not space.reductions(len(order)):
        reductions = ()
    return Genotype(genes, order, space.concat, None if reductions is None else tuple(reductions), space.inputs)


def _as_array(weights: Any) -> Table:
    if hasattr(weights, "detach"):  # a tensor; float() first, since NumPy has no bfloat16
        weights = weights.detach().double().cpu().numpy()
    return np.asarray(weights, dtype=np.float64)


def _strengths(strengths: Any, tables: Table, space: Space) -> Table:
    """[rows, edges]."""
    if strengths is None:
        return tables[..., list(space.choices)].max(-1)  # type: ignore[no-any-return]
    found = _as_array(strengths)
    if found.shape != tables.shape[:2]:
        raise ValueError(
            f"discretize: strengths must be [rows, edges]={list(tables.shape[:2])}, got {list(found.shape)}"
        )
    if not np.isfinite(found).all():
        raise ValueError("discretize: strengths must be finite, got NaN or infinity")
    return found


def _configured(table: Table, strengths: Table, space: Space, configuration: Configuration) -> Cell:
    entries = []
    for node, edges in zip(space.nodes, configuration.edges(space, strengths.tolist()), strict=True):
        for edge in edges:
            ops = sorted(space.choices, key=lambda op: -table[edge, op])[: configuration.ops_per_edge]
            entries += [Gene(space.genotype_ops[op], node, space.edges[edge].source) for op in ops]
    return tuple(entries)


def _cell(table: Table, space: Space, rule: Rule, threshold: float) -> Cell:
    if rule == "darts":
        return _strongest_edges(table, space, -np.inf)
    if rule == "sparse":
        return _strongest_edges(table, space, threshold)
    entries = []
    for edge, row in zip(space.edges, table, strict=True):
        ops = list(space.choices)
        if rule == "edge":
            ops = sorted(ops, key=row.__getitem__)[-2:]
        entries += [Gene(space.genotype_ops[k], edge.target, edge.source) for k in ops if row[k] >= threshold]
    return tuple(entries)


def _strongest_edges(table: Table, space: Space, threshold: float) -> Cell:
    """Per node the best op of each of its two strongest incoming edges, or of all edges of `every_edge` spaces."""
    every = space.selection == "every_edge"
    ops = range(len(space.ops)) if every else space.choices
    entries = []
    for node in space.nodes:
        best = [(edge, max(ops, key=table[edge].__getitem__)) for edge in space.incoming(node)]
        if not every:
            best = sorted(best, key=lambda pair: -table[pair])[: 1 if space.recurrent else 2]
        entries += [
            Gene(space.genotype_ops[op], node, space.edges[edge].source)
            for edge, op in best
            if table[edge, op] >= threshold
        ]
    return tuple(entries)
