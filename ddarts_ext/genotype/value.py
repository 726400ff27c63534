"""The genotype: an architecture as an immutable value and as a file.

A file is JSON, with the distinct cells once and the order in which they are used:

    {"version": 1, "inputs": 2, "genes": [["sep_conv_3x3:2<-0", ...], ...], "seq": [0, 1, 2, ...],
     "concat": [2, 3, 4, 5], "reductions": [2, 5] or null}

An entry "op:to<-from" applies op to the output of node `from` and adds the result into node `to`.
"""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any, Literal

from ddarts_ext import spaces
from ddarts_ext.drawing import to_svg
from ddarts_ext.genotype.cell import Cell, Gene, computable, reaching
from ddarts_ext.genotype.checks import check_entries, check_genotype, check_layers
from ddarts_ext.genotype.files import text_of
from ddarts_ext.genotype.json_form import VERSION, fields_from_json, to_json_lines
from ddarts_ext.genotype.nb201 import fields_from_nb201, nb201_to_text
from ddarts_ext.genotype.paths import dead_cells
from ddarts_ext.genotype.pictures import draw
from ddarts_ext.genotype.printed import pair_texts, to_lines
from ddarts_ext.genotype.published import fields_of_network
from ddarts_ext.genotype.recurrent import recurrent_text
from ddarts_ext.genotype.text import fields_from_text
from ddarts_ext.runs.files import write_whole
from ddarts_ext.runs.html import scrolled

ReductionRule = Literal["auto", "from_file"]


@dataclass(frozen=True)
class Genotype:
    """An architecture of len(seq) cells; cell i is `genes[seq[i]]`.

    genes: the distinct cells, or one per cell (D-DARTS); a cell without any op is allowed, as a threshold may leave
    none (it has no network). seq: which gene each cell is; all genes in order when left out. concat: the nodes that
    a cell joins to its output. reductions: the reduction cells; None stands for {L//3, 2L//3}. inputs: the number of
    input nodes, 1 in NAS-Bench-201. concats: the nodes per gene where genes differ, empty where they do not; concat is
    their union then. steps: the number of intermediate nodes that a cell may have; up to the last one that is joined
    when left out. Raises ValueError naming the place.
    """

    genes: tuple[Cell, ...]
    seq: tuple[int, ...] = ()
    concat: tuple[int, ...] = (2, 3, 4, 5)
    reductions: tuple[int, ...] | None = None
    inputs: int = 2
    concats: tuple[tuple[int, ...], ...] = ()
    steps: int = 0

    def __post_init__(self) -> None:
        # Lists are welcome, the value holds tuples: it is hashable.
        set_ = object.__setattr__
        genes = tuple(tuple(cell) for cell in self.genes)
        check_entries(genes)
        set_(self, "genes", tuple(tuple(Gene(*entry) for entry in cell) for cell in genes))
        set_(self, "seq", tuple(self.seq) if self.seq else tuple(range(len(self.genes))))
        set_(self, "reductions", None if self.reductions is None else tuple(sorted(set(self.reductions))))
        concats = tuple(tuple(concat) for concat in self.concats) or (tuple(self.concat),)
        union = tuple(sorted({node for concat in concats for node in concat}))
        same = len(set(concats)) == 1
        set_(self, "concat", concats[0] if same else union)
        set_(self, "concats", () if same else concats)
        set_(self, "steps", self.steps or max(union, default=self.inputs) - self.inputs + 1)
        if self.concats and len(self.concats) != len(self.genes):
            raise ValueError(f"genotype: concats must be one per gene, {len(self.genes)}, got {len(self.concats)}")
        check_genotype(self.genes, self.seq, concats, self.reductions, self.inputs, self.steps)

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
    def ops(self) -> frozenset[str]:
        """The names of all ops in use."""
        return frozenset(entry.op for cell in self.genes for entry in cell)

    @property
    def recurrent(self) -> bool:
        """Whether it is the cell of a recurrent network: all its ops are activations."""
        return bool(self.ops) and self.ops <= {*spaces.ACTIVATIONS}

    @property
    def reduction_cells(self) -> tuple[int, ...]:
        """Indices of the reduction cells, thirds resolved."""
        return spaces.third_reductions(self.layers) if self.reductions is None else self.reductions

    def live(self, index: int) -> Cell:
        """The entries of cell `index` that can be computed, in order.

        A node without entries does not exist; entries that read it are dropped, and so on until none does. Entries
        of op `none` do not make a node exist.
        """
        return computable(self.genes[self.seq[index]], self.inputs)

    def nodes(self, index: int) -> tuple[int, ...]:
        """The intermediate nodes that exist in cell `index`, in order of first appearance."""
        return tuple(dict.fromkeys(entry.target for entry in self.live(index)))

    def joined(self, index: int) -> tuple[int, ...]:
        """The nodes whose concatenation is the output of cell `index`: those that exist and that its concat names.

        They stand in order of first appearance; the cell has len(joined) * C channels (FairDARTS).
        """
        concat = self.concats[self.seq[index]] if self.concats else self.concat
        return tuple(node for node in self.nodes(index) if node in concat)

    def used(self, index: int) -> Cell:
        """The live entries of cell `index` that are part of its output, directly or through others, in order."""
        return reaching(self.live(index), self.joined(index))

    def reads(self, index: int) -> tuple[int, ...]:
        """The input nodes that the output of cell `index` is made of."""
        return tuple(sorted({entry.source for entry in self.used(index) if entry.source < self.inputs}))

    def dead_cells(self, also: Collection[int] = ()) -> tuple[int, ...]:
        """The cells that lie on no path from the image to the output.

        Cell i reads cell i - 2 by node 0 and cell i - 1 by node 1, as far as its output is made of them. A cell
        without output is dead, and so is all that only it reads or that reads it. also: cells whose output is read
        besides, as by an auxiliary classifier. What else is lost in a network: :func:`ddarts_ext.nn.dead_parameters`.
        """
        of_gene: dict[int, tuple[int, ...]] = {}
        for index, gene in enumerate(self.seq):
            if gene not in of_gene:
                of_gene[gene] = self.reads(index)
        return dead_cells([of_gene[gene] for gene in self.seq], self.inputs, also)

    def with_reductions(self, reductions: Sequence[int] | None) -> "Genotype":
        """The same cells with other reduction cells; None for thirds."""
        return replace(self, reductions=None if reductions is None else tuple(reductions))

    def with_layers(self, layers: int) -> "Genotype":
        """A network of `layers` cells from one normal and one reduction cell (DARTS), reductions at thirds.

        For individual cells (D-DARTS) see `ddarts_ext.derive`.
        """
        check_layers(layers)
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
        """The cells, one a line, and what is not as in most genotypes; :meth:`from_text` reads it back."""
        used = sorted(set(self.seq))
        concats = [list(self.concats[gene]) for gene in used] if self.concats else list(self.concat)
        usual = {"seq": list(range(self.layers)), "concat": [2, 3, 4, 5], "inputs": 2}
        fields = {"seq": [used.index(gene) for gene in self.seq], "concat": concats, "inputs": self.inputs}
        fields = {key: value for key, value in fields.items() if value != usual[key]}
        if self.steps > max(self.concat) - self.inputs + 1:
            fields["steps"] = self.steps
        return to_lines(self.cells, self.reduction_cells, fields)

    def _repr_html_(self) -> str:
        """The cells as a picture, for notebooks; text where a cell has more ops than can be drawn."""
        try:
            return scrolled(to_svg(draw(self), f"cells of a genotype of {self.layers}"))
        except ValueError:
            return scrolled(f"<pre>{escape(str(self))}</pre>")

    # ---- other forms

    @classmethod
    def from_darts(
        cls,
        normal: Iterable[tuple[str, int, int]],
        reduce: Iterable[tuple[str, int, int]],
        layers: int = 20,
        concat: Sequence[int] = (2, 3, 4, 5),
        reduce_concat: Sequence[int] | None = None,
    ) -> "Genotype":
        """A network of `layers` cells from a normal and a reduction cell, entries (op, target, source).

        reduce_concat: the nodes that reduction cells join, as in normal cells when left out. Nodes beyond them may be.
        """
        return cls(**fields_of_network(normal, reduce, layers, concat, reduce_concat))

    @classmethod
    def from_nb201(cls, text: str) -> "Genotype":
        """One cell from the string of NAS-Bench-201, `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`."""
        return cls(**fields_from_nb201(text))

    def to_nb201(self) -> str:
        """The string of NAS-Bench-201; needs one input node and exactly one op on every edge."""
        if self.inputs != 1 or len(self.genes) != 1:
            raise ValueError(
                f"genotype: to_nb201 needs one cell with one input node, got {len(self.genes)} with {self.inputs}"
            )
        if self.concat != (self.steps,):
            raise ValueError(
                f"genotype: to_nb201 needs the last node, {self.steps}, as output, got {list(self.concat)}"
            )
        return nb201_to_text(self.genes[0], self.steps)

    @classmethod
    def from_text(
        cls, text: str, *, layers: int = 20, reductions: ReductionRule = "auto", name: str = ""
    ) -> "Genotype":
        """Read a genotype in text, which is parsed, never evaluated.

        It may be a namedtuple of DARTS, FairDARTS or D-DARTS as printed, with a list for every node or not; the same as
        a dictionary or in AutoDL's names of ops; the tuples of NAS-Bench-301; a string of NAS-Bench-201; JSON; or what
        `str` of a genotype gives. Other text may stand around. layers: the number of cells for a normal/reduce pair,
        which has none of its own. reductions: see `from_json`. name: which of several, by the name it is assigned to.
        """
        return cls(**fields_from_text(text, layers=layers, as_it_stands=reductions == "from_file", name=name))

    def to_text(self) -> str:
        """A genotype as codes print and read it, for `from_text`, which needs the number of cells for the first two.

        The namedtuple of DARTS' recurrent cells for such a cell. That of DARTS where one normal and one reduction cell
        have two entries for every node; that of
        FairDARTS, with nodes, where they have others; that of D-DARTS for individual cells; the string of
        NAS-Bench-201. What none of them can say is as `str` writes it.
        """
        forms: list[str] = []
        if self.recurrent and self.inputs == 1:
            forms.append(recurrent_text(self.genes[0], self.concat))
        elif self.inputs == 1:
            with suppress(ValueError):
                return self.to_nb201()
        if len(self.genes) == 2:
            forms += pair_texts(*self.genes, *(self.concats or (self.concat, self.concat)))
        seq = "" if self.seq == tuple(range(self.layers)) else f"seq={list(self.seq)}, "
        concat: list[Any] = [list(nodes) for nodes in self.concats] or list(self.concat)
        genes = [[tuple(entry) for entry in cell] for cell in self.genes]
        forms.append(f"Genotype(genes={genes}, {seq}concat={concat}, reductions={list(self.reduction_cells)})")
        for form in forms:
            with suppress(ValueError):
                if Genotype.from_text(form, layers=self.layers) == self:
                    return form
        return str(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any], *, reductions: ReductionRule = "auto") -> "Genotype":
        """Read the versioned form, or the published one without a version.

        Two fields of published genotypes do not say what their networks are (every published count of parameters
        does), so that in the form without a version, with "auto", they are mended; "from_file" takes them as they
        stand. Two `reductions` of a genotype of the DARTS space (D-DARTS) are stale: its networks reduce at
        {L//3, 2L//3}. The `concat` of a genotype with ops of the 12-op space (DARTOpti) is that of the supernet: its
        networks join every node that exists.
        """
        return cls(**fields_from_json(data, as_it_stands=reductions == "from_file"))

    def to_json(self) -> dict[str, Any]:
        """The versioned form, ready for json.dump.

        `concat` is one list of nodes, or one per gene where they differ; `steps` is there where a cell has nodes
        beyond the last one that is joined.
        """
        beyond = self.steps > max(self.concat) - self.inputs + 1
        return {
            "version": VERSION,
            "inputs": self.inputs,
            "genes": [[str(entry) for entry in cell] for cell in self.genes],
            "seq": list(self.seq),
            "concat": [list(concat) for concat in self.concats] or list(self.concat),
            **({"steps": self.steps} if beyond else {}),
            "reductions": None if self.reductions is None else list(self.reductions),
        }

    @classmethod
    def load(
        cls, source: str | os.PathLike[str], *, layers: int | None = None, reductions: ReductionRule = "auto"
    ) -> "Genotype":
        """Read a file, `FILE#NAME` of a file with many genotypes, a run folder, a built-in name, or the text itself.

        layers: the number of cells for a genotype of one normal and one reduction cell.
        """
        text, name = text_of(source)
        genotype = cls.from_text(text, reductions=reductions, name=name)
        return genotype if layers is None else genotype.with_layers(layers)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the versioned form, whole or not at all."""
        write_whole(Path(path), to_json_lines(self.to_json()).encode())
