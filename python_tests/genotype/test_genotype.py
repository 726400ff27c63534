"""Genotypes: every published form reads to the same value, files survive the round trip, errors name the place."""

import errno
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddarts_ext import spaces
from ddarts_ext.genotype import Gene, Genotype, architectures
from ddarts_ext.genotype.files import image_architectures

DARTS_V1 = """
DARTS_V1 = Genotype(normal=[('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 0), ('sep_conv_3x3', 1),
    ('skip_connect', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 2)], normal_concat=[2, 3, 4, 5],
    reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 0), ('max_pool_3x3', 0),
    ('skip_connect', 2), ('skip_connect', 2), ('avg_pool_3x3', 0)], reduce_concat=[2, 3, 4, 5])
"""
FAIRDARTS_A = (
    "Genotype(normal=[('sep_conv_3x3', 2, 0), ('sep_conv_5x5', 2, 1), ('max_pool_3x3', 4, 0), ('sep_conv_3x3', 5, 0)], "
    "normal_concat=range(2, 6), reduce=[('max_pool_3x3', 2, 0), ('avg_pool_3x3', 2, 1), ('avg_pool_3x3', 3, 0), "
    "('dil_conv_5x5', 3, 1), ('avg_pool_3x3', 4, 0), ('sep_conv_5x5', 4, 1), ('skip_connect', 5, 0), "
    "('skip_connect', 5, 1)], reduce_concat=range(2, 6))"
)
NESTED = (
    "Genotype_nested(genes=[[('sep_conv_3x3', 2, 0)], [('skip_connect', 3, 2), ('max_pool_3x3', 2, 1)], [], "
    "[('dil_conv_3x3', 5, 4)]], concat=range(2, 6), reductions=[1, 3])"
)


def triples(cell: tuple[Gene, ...]) -> list[tuple[str, int, int]]:
    return [tuple(entry) for entry in cell]


# ---- the value


def test_built_in_architectures() -> None:
    assert len(architectures()) == 27
    for name in architectures():
        genotype = Genotype.load(name)
        assert Genotype.load(name.lower()) == genotype
        assert Genotype.from_json(json.loads(json.dumps(genotype.to_json()))) == genotype
        assert hash(genotype) == hash(Genotype.load(name))
        names = ("rnn",) if genotype.recurrent else ("darts", "dartopti")
        space = next((s for s in map(spaces.get, names) if genotype.ops <= set(s.ops)), spaces.get(names[-1]))
        assert genotype.ops <= set(space.ops)


def test_seq_expands_to_cells() -> None:
    xception = Genotype.load("Xception")
    assert xception.layers == 13
    assert xception.seq == (0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 0, 2)
    assert xception.cells[11] == xception.genes[0]
    assert xception.reduction_cells == (1, 2, 11, 12)
    assert Genotype.load("ResNet50").steps == 6


def test_darts_genotypes_take_any_length() -> None:
    genotype = Genotype.load("DARTS_V2", layers=8)
    assert genotype.seq == (0, 0, 1, 0, 0, 1, 0, 0)
    assert genotype.reduction_cells == (2, 5)
    assert genotype.with_layers(20) == Genotype.load("DARTS_V2")
    with pytest.raises(ValueError, match="with_layers needs one normal and one reduction cell"):
        Genotype.load("D-DARTS_edge_cifar10").with_layers(14)


def test_nodes_that_cannot_be_computed_do_not_exist() -> None:
    genotype = Genotype.load("FairDARTS_a")
    assert genotype.nodes(0) == (2, 4, 5)
    assert genotype.nodes(6) == (2, 3, 4, 5)
    dead = Genotype((tuple(Gene("skip_connect", *edge) for edge in ((3, 2), (4, 3), (5, 4), (5, 0))),))
    assert dead.live(0) == (Gene("skip_connect", 5, 0),)
    assert dead.nodes(0) == (5,)
    # The last cell of this published genotype has no node that reads an input.
    assert Genotype.load("Xception_cifar100_edge").nodes(12) == ()


def test_text_of_a_genotype_names_its_cells() -> None:
    lines = str(Genotype.load("FairDARTS_b", layers=3)).splitlines()
    assert lines[0] == "3 cells, reductions [1, 2]"
    assert lines[2].startswith("cell 1 (reduction): skip_connect:2<-0 dil_conv_3x3:2<-1")


# ---- the forms


def test_darts_text() -> None:
    assert Genotype.from_text(DARTS_V1) == Genotype.load("DARTS_V1")
    assert Genotype.from_text(DARTS_V1, layers=8) == Genotype.load("DARTS_V1", layers=8)
    assert Genotype.from_text(FAIRDARTS_A) == Genotype.load("FairDARTS_a")


def test_nested_and_opt_text() -> None:
    genotype = Genotype.from_text(NESTED, reductions="from_file")
    assert genotype.cells[1] == (Gene("skip_connect", 3, 2), Gene("max_pool_3x3", 2, 1))
    assert genotype.cells[2] == ()
    assert genotype.reduction_cells == (1, 3)
    resnet = Genotype.load("ResNet18")
    genes = [triples(cell) for cell in resnet.genes]
    named = f"Genotype_opt(genes={genes}, seq=[0, 0, 0, 0], concat=range(2, 6), reductions=[1, 2, 3])"
    positional = f"Genotype_opt({genes}, [0, 0, 0, 0], range(2, 6), [1, 2, 3])"
    assert Genotype.from_text(named) == Genotype.from_text(positional) == resnet


def test_text_of_every_published_genotype_reads_to_its_file() -> None:
    for name in image_architectures():
        genotype = Genotype.load(name, reductions="from_file")
        text = (
            f"Genotype(genes={[triples(cell) for cell in genotype.genes]}, seq={list(genotype.seq)}, "
            f"concat={list(genotype.concat)}, reductions={list(genotype.reduction_cells)})"
        )
        assert Genotype.from_text(text, reductions="from_file").cells == genotype.cells


def test_stale_reductions_of_published_ddarts_genotypes_are_replaced_by_thirds() -> None:
    assert Genotype.load("D-DARTS_edge_cifar10").reduction_cells == (2, 5)
    assert Genotype.load("D-DARTS_edge_cifar10", reductions="from_file").reduction_cells == (2, 6)
    # What a search wrote is taken at its word.
    told = Genotype.load("D-DARTS_edge_cifar10").with_reductions((1, 3))
    assert Genotype.from_json(told.to_json()).reduction_cells == (1, 3)
    assert Genotype.load("InceptionV4").reduction_cells == (4, 12)


def test_nasbench201_strings_both_ways() -> None:
    text = "|nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|+|skip_connect~0|avg_pool_3x3~1|nor_conv_1x1~2|"
    genotype = Genotype.from_text(text)
    assert genotype.to_nb201() == text
    assert genotype.inputs == 1
    assert genotype.genes[0][2] == Gene("none", 2, 1)
    assert Genotype.from_json(genotype.to_json()) == genotype


@settings(max_examples=30)
@given(st.lists(st.sampled_from(spaces.get("nasbench201").ops), min_size=6, max_size=6))
def test_any_nasbench201_string_round_trips(ops: list[str]) -> None:
    a, b, c, d, e, f = ops
    text = f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"
    assert Genotype.from_nb201(text).to_nb201() == text


@pytest.mark.skipif("DDARTS_SHARED" not in os.environ, reason="DDARTS_SHARED is not set")
def test_the_shared_file_holds_the_same_genotypes() -> None:
    path = Path(os.environ["DDARTS_SHARED"]) / "genotypes.json"
    for name in json.loads(path.read_text()):
        short = name.removeprefix("baseline_").replace("threshold_", "").removesuffix("_50").removesuffix("_0.85")
        assert Genotype.load(f"{path}#{name}") == Genotype.load(short)
    with pytest.raises(ValueError, match="must be a genotype or FILE#NAME with one of D-DARTS"):
        Genotype.load(path)


# ---- files


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_any_genotype_survives_the_file(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    space = spaces.get("dartopti", steps=data.draw(st.integers(1, 6)))
    entry = st.builds(
        lambda op, edge: Gene(op, edge.target, edge.source), st.sampled_from(space.ops), st.sampled_from(space.edges)
    )
    genes = data.draw(st.lists(st.lists(entry, max_size=8, unique=True), min_size=1, max_size=4))
    seq = data.draw(st.lists(st.integers(0, len(genes) - 1), min_size=1, max_size=9))
    reductions = data.draw(st.none() | st.lists(st.integers(0, len(seq) - 1), max_size=3))
    genotype = Genotype(genes, seq, space.concat, reductions)  # type: ignore[arg-type]
    path = tmp_path_factory.mktemp("genotype") / "genotype.json"
    genotype.save(path)
    assert Genotype.load(path) == genotype
    assert Genotype.load(path.parent) == genotype
    assert [entry.name for entry in path.parent.iterdir()] == ["genotype.json"]


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "genotype.json"
    Genotype.load("ResNet18").save(path)

    def fail(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        Genotype.load("ResNet50").save(path)
    assert Genotype.load(path) == Genotype.load("ResNet18")
    assert [entry.name for entry in tmp_path.iterdir()] == ["genotype.json"]


def test_a_full_disk_is_said_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "genotype.json"

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=r"No space left on device: .*genotype\.json"):
        Genotype.load("ResNet18").save(path)
    assert not path.exists()


# ---- wrong input


def good() -> dict[str, object]:
    return {"version": 1, "genes": [["sep_conv_3x3:2<-0"], ["skip_connect:3<-2", "skip_connect:2<-1"]]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"genes": [["sep_conv_3x3:2<-0", "skip_connect:4<-5"]]},
            r"genes\[0\]\[1\]: source must be < target 4 \(no cyc",
        ),
        ({"genes": [["skip_connect:3<-3"]]}, r"genes\[0\]\[0\]: source must be < target 3 .*, got 3"),
        ({"genes": [[], ["sep_conv_9x9:2<-0"]]}, r"genes\[1\]\[0\]: op must be one of .*, got 'sep_conv_9x9'"),
        ({"genes": [["skip_connect:6<-0"]]}, r"genes\[0\]\[0\]: target must be a node in 2..5, got 6"),
        ({"genes": [["skip_connect:1<-0"]]}, r"genes\[0\]\[0\]: target must be a node in 2..5, got 1"),
        ({"genes": [["skip_connect:4<-7"]]}, r"genes\[0\]\[0\]: source must be a node in 0..5, got 7"),
        ({"genes": [["skip_connect:2<-0", "skip_connect:2<-0"]]}, r"genes\[0\]: entries must be distinct, got skip_co"),
        ({"genes": [["skip_connect 2 0"]]}, r"genes\[0\]\[0\] must be \"op:to<-from\""),
        ({"genes": [[7]]}, r"genes\[0\]\[0\] must be \"op:to<-from\" or \[op, to, from\], got 7"),
        ({"genes": ["skip_connect:2<-0"]}, r"genes\[0\] must be a list of entries"),
        ({"genes": []}, "genes must hold at least one cell, got none"),
        ({"genes": 3}, "genes must be a list of cells, got 3"),
        ({"seq": [0, 2]}, r"seq\[1\] must be in 0..1, got 2"),
        ({"seq": [0, "1"]}, r"seq\[1\] must be an integer, got '1'"),
        ({"concat": [1, 2]}, r"concat\[0\]: node must be in 2..999, got 1"),
        ({"concat": [10**9]}, r"concat\[0\]: node must be in 2..999, got 1000000000"),
        ({"concat": [2, 2]}, "concat must be distinct nodes"),
        ({"reductions": [2]}, r"reductions\[0\] must be in 0..1, got 2"),
        ({"version": 2}, "version must be 1, got 2"),
        ({"alphas": []}, "unknown key 'alphas'"),
        ({"inputs": 0}, "inputs must be >= 1, got 0"),
        ({"inputs": True}, r"inputs\[0\] must be an integer, got True"),
    ],
)
def test_errors_name_the_place(change: dict[str, object], message: str) -> None:
    Genotype.from_json(good())
    with pytest.raises(ValueError, match="genotype: " + message):
        Genotype.from_json(good() | change)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Genotype(normal=[", "text line 1"),
        ("__import__('os').system('true')", "the text must have keyword arguments"),
        ("Genotype(genes=open('/etc/passwd'))", r"genes must be a name, a number, a list or range\(...\), got open"),
        (
            "Genotype(genes=[[('skip_connect', 2, 1 + 1)]], concat=[2])",
            r"genes\[0\]\[0\]\[2\] must be a name, a number",
        ),
        ("Genotype(normal=[], reduce=[], normal_concat=[2])", "the text must have reduce_concat= beside normal="),
        ("Genotype(normal=[], reduce=[], normal_concat=2, reduce_concat=[3])", "normal_concat must be a list of nodes"),
        (
            "Genotype(normal=[('x',)], reduce=[], normal_concat=[2], reduce_concat=[2])",
            r"normal\[0\] must be \(op, sour",
        ),
        ("Genotype(cells=[])", "the text must have normal=/reduce=, genes= or recurrent=, got cells"),
        ("[1, 2]", r"the text must be one Genotype\(...\), an NB201 string or JSON"),
        ("{", "the text is not JSON"),
        ("|none~0|+|none~0|", "node 2 of the NB201 string must have 2 ops, got 1"),
        ("|none~1|", "node 1 of the NB201 string: expected op~0, got 'none~1'"),
        ("|none~0|+none~0|none~1", r"node 2 of the NB201 string must be \|...\|"),
        ("|conv~0|", r"genes\[0\]\[0\]: op must be one of .*, got 'conv'"),
        ("Genotype(genes=" + "[" * 300 + "]" * 300 + ")", "the text cannot be parsed|text line 1|must be"),
    ],
)
def test_texts_are_parsed_and_never_evaluated(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"genotype: .*" + message):
        Genotype.from_text(text)


def test_a_missing_file_lists_the_built_in_names(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"genotype: must be a file or one of D-DARTS_edge.*, got 'DARTS_V3'"):
        Genotype.load("DARTS_V3")
    broken = tmp_path / "genotype.json"
    broken.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"genotype: .*genotype.json must be a text file"):
        Genotype.load(broken)
    broken.write_text("{nothing")
    with pytest.raises(ValueError, match=r"genotype: .*genotype.json is not JSON"):
        Genotype.load(broken)


def test_to_nb201_needs_one_op_on_every_edge() -> None:
    with pytest.raises(ValueError, match="to_nb201 needs one cell with one input node"):
        Genotype.load("ResNet18").to_nb201()
    with pytest.raises(ValueError, match="to_nb201 needs one op on every edge, got none on 2<-0"):
        Genotype(((Gene("none", 1, 0),),), concat=(3,), inputs=1).to_nb201()


def test_a_name_within_a_file_of_one_genotype_is_refused(tmp_path: Path) -> None:
    Genotype.load("DARTS_V2").save(tmp_path / "one.json")
    with pytest.raises(ValueError, match=r"must be given without #other, as it holds one genotype"):
        Genotype.load(f"{tmp_path / 'one.json'}#other")
