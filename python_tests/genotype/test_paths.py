"""Cells on no path from the image to the output, against what autograd finds in the network."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddarts_ext.genotype import Gene, Genotype, architectures
from ddarts_ext.genotype.paths import dead_cells


def chain(*cells: str, **fields: object) -> Genotype:
    """Cells of entries "op:to<-from", spaces between them."""
    return Genotype.from_json({"version": 1, "genes": [cell.split() for cell in cells], **fields})


SKIP0, SKIP1 = "skip_connect:2<-0", "skip_connect:2<-1"


@pytest.mark.parametrize(
    ("cells", "dead"),
    [
        ((SKIP1, SKIP1, SKIP1), ()),
        ((SKIP1, SKIP1, SKIP0), (1,)),
        # Two cells that read node 0 alone: nothing of the one before the last gets a gradient.
        ((SKIP0, SKIP0), (0,)),
        ((SKIP0,) * 4, (0, 2)),
        ((f"{SKIP0} skip_connect:4<-1",) * 4, ()),
        # Node 3 reads the last cell, and is read by no node that is joined.
        ((SKIP1, f"{SKIP0} skip_connect:3<-1"), (0,)),
        # The entry that reads node 3 cannot be computed.
        (("skip_connect:4<-3 skip_connect:2<-1", "skip_connect:4<-3 skip_connect:2<-0"), (0,)),
        # A cell without output stops all paths.
        ((SKIP1, "none:2<-1", SKIP1), (0, 1, 2)),
        ((SKIP1, "", SKIP0), (1,)),
    ],
)
def test_cells_on_no_path(cells: tuple[str, ...], dead: tuple[int, ...]) -> None:
    assert chain(*cells, concat=[2, 4]).dead_cells() == dead


def test_published_architectures() -> None:
    """SPEC C.4 xi: encodings that read node 0 alone lose every other cell. In four of the searched ones the last cell
    reads node 0 alone; that of Xception_cifar100_edge has no output."""
    odd = {
        "ResNet18": (0, 2),
        "ResNet50": (0, 2),
        "InceptionV4": tuple(range(0, 16, 2)),
        "Xception": tuple(range(1, 13, 2)),
        "Xception_cifar10_edge": (11,),
        "Xception_cifar10_sparse": (11,),
        "Xception_cifar100_sparse": (11,),
        "Xception_cifar100_edge": tuple(range(13)),
        "D-DARTS_sparse_abl0.5_fair7_cifar100": (6,),
    }
    assert {name: dead for name in architectures() if (dead := Genotype.load(name).dead_cells())} == odd


def test_one_input_reads_the_cell_before() -> None:
    assert dead_cells([(0,), (0,)], 1) == ()
    assert dead_cells([(0,), ()], 1) == (0, 1)
    assert Genotype.from_nb201("|none~0|+|none~0|skip_connect~1|").dead_cells() == (0,)
    assert Genotype.from_nb201("|none~0|+|skip_connect~0|none~1|").dead_cells() == ()


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_cell_is_dead_where_no_path_of_edges_leads_through_it(data: st.DataObject) -> None:
    """Against all paths, in a graph of cells and nodes at once."""
    edges = [(target, source) for target in range(2, 6) for source in range(target)]
    entry = st.sampled_from(edges).map(lambda edge: Gene("skip_connect", *edge))
    genes = data.draw(st.lists(st.lists(entry, min_size=1, max_size=6, unique=True), min_size=1, max_size=6))
    concats = data.draw(
        st.lists(st.lists(st.integers(2, 5), min_size=1, unique=True), min_size=len(genes), max_size=len(genes))
    )
    genotype = Genotype(genes, concats=concats, steps=4)  # type: ignore[arg-type]
    if any(not genotype.joined(i) for i in range(genotype.layers)):
        return
    seen: set[int] = set()

    def walk(cell: int, node: int) -> None:
        """All that a node of a cell is made of, backwards."""
        if node < 2:
            before = cell - 2 + node
            if before >= 0 and before not in seen:
                seen.add(before)
                for joined in genotype.joined(before):
                    walk(before, joined)
            return
        for gene in genotype.live(cell):
            if gene.target == node:
                walk(cell, gene.source)

    seen.add(genotype.layers - 1)
    for joined in genotype.joined(genotype.layers - 1):
        walk(genotype.layers - 1, joined)
    assert genotype.dead_cells() == tuple(sorted(set(range(genotype.layers)) - seen))
