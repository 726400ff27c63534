"""The genotype: an architecture as an immutable value and as a file.

A file is JSON, with the distinct cells once and the order in which they are used:

    {"version": 1, "inputs": 2, "genes": [["sep_conv_3x3:2<-0", ...], ...], "seq": [0, 1, 2, ...],
     "concat": [2, 3, 4, 5], "reductions": [2, 5] or null}

An entry "op:to<-from" applies op to the output of node `from` and adds the result into node `to`.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from ddarts_ext import spaces
from ddarts_ext.genotype.files import (
    VERSION,
    fields_from_json,
    parse_json,
    text_of,
    to_lines,
    write_atomically,
)
from ddarts_ext.genotype.text import nb201_from_text, nb201_to_text, published_from_text

ReductionRule = Literal["auto", "from_file"]


_MAX_NODES = 1000  # a mistyped number must not make a table of 10^18 edges


class Gene(NamedTuple):
    """One op of a cell: `op` applied to node `source`, added into node `target`."""

    op: str
    target: int
    source: int

    def __str__(self) -> str:
        return f"{self.op}:{self.target}<-{self.source}"


Cell = tuple[Gene, ...]


@dataclass(frozen=True)
class Genotype:
    """An architecture of len(seq) cells; cell i is `genes[seq[i]]`.

    genes: the distinct cells, or one per cell (D-DARTS); a cell without any op is allowed, as a threshold may leave
    none (it has no network). seq: which gene each cell is; all genes in order when left out. concat: the nodes that
    the space concatenates; its largest is the last node there is. reductions: the reduction cells; None stands for
    {L//3, 2L//3}. inputs: the number of input nodes, 1 in NAS-Bench-201. Raises ValueError naming the place.
    """

    genes: tuple[Cell, ...]
    seq: tuple[int, ...] = ()
    concat: tuple[int, ...] = (2, 3, 4, 5)
    reductions: tuple[int, ...] | None = None
    inputs: int = 2

    def __post_init__(self) -> None:
        # Lists are welcome, the value holds tuples: it is hashable.
        set_ = object.__setattr__
        set_(self, "genes", tuple(tuple(Gene(*entry) for entry in cell) for cell in self.genes))
        set_(self, "seq", tuple(self.seq) if self.seq else tuple(range(len(self.genes))))
        set_(self, "concat", tuple(self.concat))
        set_(self, "reductions", None if self.reductions is None else tuple(sorted(set(self.reductions))))
        _validate(self)

    # ---- the architecture

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The cells in network order: genes expanded by seq."""
        return tuple(self.genes[i] for i in self.seq)

    @property
    def layers(self) -> int:
        """The number of cells."""
        return len(self.seq)

    @property
    def steps(self) -> int:
        """The number of intermediate nodes that a cell may have."""
        return max(self.concat) - self.inputs + 1

    @property
    def ops(self) -> frozenset[str]:
        """The names of all ops in use."""
        return frozenset(entry.op for cell in self.genes for entry in cell)

    @property
    def reduction_cells(self) -> tuple[int, ...]:
        """Indices of the reduction cells, thirds resolved."""
        return spaces.third_reductions(self.layers) if self.reductions is None else self.reductions

    def live(self, index: int) -> Cell:
        """The entries of cell `index` that can be computed, in order.

        A node without entries does not exist; entries that read it are dropped, and so on until none does. Entries
        of op `none` do not make a node exist.
        """
        cell = tuple(entry for entry in self.genes[self.seq[index]] if entry.op != "none")
        while True:
            exist = {*range(self.inputs), *(entry.target for entry in cell)}
            kept = tuple(entry for entry in cell if entry.source in exist)
            if len(kept) == len(cell):
                return kept
            cell = kept

    def nodes(self, index: int) -> tuple[int, ...]:
        """The intermediate nodes that exist in cell `index`, in order of first appearance.

        The evaluation cell outputs their concatenation, so that its channels are len(nodes) * C (FairDARTS).
        """
        return tuple(dict.fromkeys(entry.target for entry in self.live(index)))

    def reads(self, index: int) -> frozenset[int]:
        """The input nodes that the output of cell `index` depends on."""
        entries = self.live(index)
        found = set(self.nodes(index))
        while True:
            more = found | {entry.source for entry in entries if entry.target in found}
            if more == found:
                return frozenset(node for node in found if node < self.inputs)
            found = more

    def dead_cells(self) -> tuple[int, ...]:
        """The cells on which the output of the network does not depend: what they compute is lost.

        Cell i reads the outputs of cells i-2 (node 0) and i-1 (node 1), the first ones the stem.
        """
        if self.inputs != 2:
            return tuple(index for index in range(self.layers) if not self.live(index))
        alive, new = set(), {self.layers - 1}
        while new:
            alive |= new
            new = {index - 2 + node for index in new for node in self.reads(index)} - alive - {-1, -2}
        return tuple(index for index in range(self.layers) if index not in alive)

    def with_reductions(self, reductions: Sequence[int] | None) -> "Genotype":
        """The same cells with other reduction cells; None for thirds."""
        return replace(self, reductions=None if reductions is None else tuple(reductions))

    def with_layers(self, layers: int) -> "Genotype":
        """A network of `layers` cells from one normal and one reduction cell (DARTS), reductions at thirds.

        For individual cells (D-DARTS) see `ddarts_ext.derive`.
        """
        reductions = self.reduction_cells
        normal = {gene for i, gene in enumerate(self.seq) if i not in reductions}
        reduce = {self.seq[i] for i in reductions}
        if len(normal) != 1 or len(reduce) != 1 or reductions != spaces.third_reductions(self.layers):
            raise ValueError(
                "genotype: with_layers needs one normal and one reduction cell at thirds; "
                "use derive for individual cells"
            )
        thirds = spaces.third_reductions(layers)
        seq = tuple(min(reduce) if i in thirds else min(normal) for i in range(layers))
        return replace(self, seq=seq, reductions=None)

    def __str__(self) -> str:
        lines = [f"{self.layers} cells, reductions {list(self.reduction_cells)}"]
        for i, cell in enumerate(self.cells):
            kind = "reduction" if i in self.reduction_cells else "normal"
            lines.append(f"cell {i} ({kind}): {' '.join(map(str, cell)) or 'empty'}")
        return "\n".join(lines)

    # ---- other forms

    @classmethod
    def from_darts(
        cls,
        normal: Iterable[tuple[str, int, int]],
        reduce: Iterable[tuple[str, int, int]],
        layers: int = 20,
        concat: Sequence[int] = (2, 3, 4, 5),
    ) -> "Genotype":
        """A network of `layers` cells from a normal and a reduction cell, entries (op, target, source)."""
        thirds = spaces.third_reductions(layers)
        genes = (tuple(Gene(*entry) for entry in normal), tuple(Gene(*entry) for entry in reduce))
        return cls(genes, tuple(int(i in thirds) for i in range(layers)), tuple(concat))

    @classmethod
    def from_nb201(cls, text: str) -> "Genotype":
        """One cell from the string of NAS-Bench-201, `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`."""
        entries = nb201_from_text(text)
        return cls((tuple(Gene(*entry) for entry in entries),), (0,), (max(e[1] for e in entries),), (), inputs=1)

    def to_nb201(self) -> str:
        """The string of NAS-Bench-201; needs one input node and exactly one op on every edge."""
        if self.inputs != 1 or len(self.genes) != 1:
            raise ValueError(
                f"genotype: to_nb201 needs one cell with one input node, got {len(self.genes)} with {self.inputs}"
            )
        return nb201_to_text(self.genes[0], max(self.concat))

    @classmethod
    def from_text(cls, text: str, *, layers: int = 20, reductions: ReductionRule = "auto") -> "Genotype":
        """Read a printed namedtuple of DARTS, FairDARTS or D-DARTS, an NB201 string, or JSON.

        The text is parsed, never evaluated. layers: the number of cells for a normal/reduce pair, which has none of
        its own. reductions: see `from_json`.
        """
        text = text.strip()
        if text.startswith("|"):
            return cls.from_nb201(text)
        if text.startswith("{"):
            return cls.from_json(parse_json(text, "the text"), reductions=reductions)
        fields = published_from_text(text)
        if "normal" in fields:
            return cls.from_darts(fields["normal"], fields["reduce"], layers, fields["concat"])
        return cls.from_json(fields, reductions=reductions)

    @classmethod
    def from_json(cls, data: Mapping[str, Any], *, reductions: ReductionRule = "auto") -> "Genotype":
        """Read the versioned form, or the published one without a version.

        The `reductions` of published D-DARTS genotypes are stale: their networks reduce at {L//3, 2L//3} (every
        published count of parameters says so). So in the form without a version two reductions of a genotype of
        the DARTS space are replaced by thirds; "from_file" takes them as they stand.
        """
        genotype = cls(**fields_from_json(data))
        published = "version" not in data and len(genotype.reductions or ()) == 2
        if reductions == "auto" and published and genotype.ops <= set(spaces.get("darts").ops):
            return genotype.with_reductions(None)
        return genotype

    def to_json(self) -> dict[str, Any]:
        """The versioned form, ready for json.dump."""
        return {
            "version": VERSION,
            "inputs": self.inputs,
            "genes": [[str(entry) for entry in cell] for cell in self.genes],
            "seq": list(self.seq),
            "concat": list(self.concat),
            "reductions": None if self.reductions is None else list(self.reductions),
        }

    @classmethod
    def load(
        cls, source: str | os.PathLike[str], *, layers: int | None = None, reductions: ReductionRule = "auto"
    ) -> "Genotype":
        """Read a file, `FILE#NAME` of a file with many genotypes, a run folder, or a built-in architecture by name.

        layers: the number of cells for a genotype of one normal and one reduction cell.
        """
        genotype = cls.from_text(text_of(source), reductions=reductions)
        return genotype if layers is None else genotype.with_layers(layers)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the versioned form, whole or not at all."""
        write_atomically(path, to_lines(self.to_json()))


def _validate(genotype: Genotype) -> None:
    if not genotype.genes:
        raise ValueError("genotype: genes must hold at least one cell, got none")
    if genotype.inputs < 1:
        raise ValueError(f"genotype: inputs must be >= 1, got {genotype.inputs}")
    if not genotype.concat or len(set(genotype.concat)) != len(genotype.concat):
        raise ValueError(f"genotype: concat must be distinct nodes, at least one, got {list(genotype.concat)}")
    for i, node in enumerate(genotype.concat):
        if not genotype.inputs <= node < _MAX_NODES:
            raise ValueError(f"genotype: concat[{i}]: node must be in {genotype.inputs}..{_MAX_NODES - 1}, got {node}")
    for i, index in enumerate(genotype.seq):
        if not 0 <= index < len(genotype.genes):
            raise ValueError(f"genotype: seq[{i}] must be in 0..{len(genotype.genes) - 1}, got {index}")
    for i, cell in enumerate(genotype.reductions or ()):
        if not 0 <= cell < genotype.layers:
            raise ValueError(f"genotype: reductions[{i}] must be in 0..{genotype.layers - 1}, got {cell}")
    for c, entries in enumerate(genotype.genes):
        _validate_cell(f"genotype: genes[{c}]", entries, genotype.inputs, max(genotype.concat))


def _validate_cell(place: str, cell: Cell, first: int, last: int) -> None:
    known = spaces.known_ops()
    for i, (op, target, source) in enumerate(cell):
        if op not in known:
            raise ValueError(f"{place}[{i}]: op must be one of {', '.join(sorted(known))}, got {op!r}")
        if not first <= target <= last:
            raise ValueError(f"{place}[{i}]: target must be a node in {first}..{last}, got {target}")
        if not 0 <= source <= last:
            raise ValueError(f"{place}[{i}]: source must be a node in 0..{last}, got {source}")
        if source >= target:
            raise ValueError(f"{place}[{i}]: source must be < target {target} (no cycles), got {source}")
    if len(set(cell)) != len(cell):
        twice = next(entry for i, entry in enumerate(cell) if entry in cell[:i])
        raise ValueError(f"{place}: entries must be distinct, got {twice} twice")
