"""Text that people have: every form of a genotype reads to the same value, and what is written is read back."""

from __future__ import annotations

import codecs
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from ddarts_ext import cli, spaces
from ddarts_ext.genotype import Gene, Genotype, architectures

V2 = Genotype.load("DARTS_V2")
NORMAL, REDUCE = ([(entry.op, entry.source) for entry in cell] for cell in V2.genes)
PRINTED = f"Genotype(normal={NORMAL}, normal_concat=range(2, 6), reduce={REDUCE}, reduce_concat=range(2, 6))"


def per_node(pairs: list[tuple[str, int]], opening: str = "[]") -> str:
    nodes = (pairs[i : i + 2] for i in range(0, len(pairs), 2))
    return "[" + ", ".join(opening[0] + ", ".join(map(str, node)) + opening[1] for node in nodes) + "]"


def call(normal: str, reduce: str, concat: str = "[2, 3, 4, 5]") -> str:
    return f"Genotype(normal={normal}, normal_concat={concat}, reduce={reduce}, reduce_concat={concat})"


def numpy_numbers(pairs: list[tuple[str, int]]) -> str:
    return "[" + ", ".join(f"('{op}', np.int64({source}))" for op, source in pairs) + "]"


def autodl(text: str) -> str:
    return text.replace("sep_conv", "dua_sepc").replace("dil_conv", "dil_sepc")


def by_index(pairs: list[tuple[str, int]]) -> tuple[tuple[int, int], ...]:
    return tuple((source, spaces.get("darts").ops.index(op)) for op, source in pairs)


FORMS = {
    "as printed": PRINTED,
    "lists": call(str(NORMAL), str(REDUCE)),
    "tuples": call(str(tuple(NORMAL)), str(tuple(REDUCE)), "(2, 3, 4, 5)"),
    "range": call(str(NORMAL), str(REDUCE), "list(range(2, 6))"),
    "one list a node": call(per_node(NORMAL), per_node(REDUCE), "range(2, 6)"),
    "one tuple a node (AutoDL)": autodl(call(per_node(NORMAL, "()"), per_node(REDUCE, "()"))),
    "NumPy's numbers": call(numpy_numbers(NORMAL), numpy_numbers(REDUCE), "array([2, 3, 4, 5])"),
    "NumPy's names": PRINTED.replace("'skip_connect'", "np.str_('skip_connect')"),
    "double quotes": PRINTED.replace("'", '"'),
    "with weights": call(str([(op, source, 0.25) for op, source in NORMAL]), str([(op, s, 1e-05) for op, s in REDUCE])),
    "positional": f"Genotype({NORMAL}, range(2, 6), {REDUCE}, range(2, 6))",
    "positional, one list a node": f"Genotype({per_node(NORMAL)}, range(2, 6), {per_node(REDUCE)}, range(2, 6))",
    "a tuple without name": f"({NORMAL}, [2, 3, 4, 5], {REDUCE}, [2, 3, 4, 5])",
    "NAS-Bench-301": str((by_index(NORMAL), by_index(REDUCE))),
    "a dictionary": str(
        {"normal": NORMAL, "normal_concat": [2, 3, 4, 5], "reduce": REDUCE, "reduce_concat": [2, 3, 4, 5]}
    ),
    "a dictionary in a log": f"<<<--->>> The 149-th epoch : {{'normal': {NORMAL}, 'normal_concat': [2, 3, 4, 5], "
    f"'reduce': {REDUCE}, 'reduce_concat': [2, 3, 4, 5]}}\nnext",
    "JSON": json.dumps(
        {"normal": NORMAL, "normal_concat": [2, 3, 4, 5], "reduce": REDUCE, "reduce_concat": [2, 3, 4, 5]}
    ),
    "an assignment": f"DARTS_V2 = {PRINTED}",
    "an assignment on two lines": f"DARTS_V2 = \\\n    {PRINTED}",
    "another name": f"genotypes.DARTS = genotypes.Genotype{PRINTED.removeprefix('Genotype')}",
    "a comment inside": PRINTED.replace("normal_concat", "# the cells\n  normal_concat"),
    "a log": f"11/26 10:09:34 PM epoch 49 lr 1.0e-03\n11/26 10:09:35 PM genotype = {PRINTED}\n11/26 train_acc 99.2\n",
    "a log of many epochs": "".join(
        f"03/01 01:02:03 AM genotype = {text}\nvalid_acc 88.1\n"
        for text in (PRINTED.replace("sep_conv_3x3", "max_pool_3x3"), PRINTED.replace("(2, 6)", "(3, 6)"), PRINTED)
    ),
    "a commented line before": f"# best = Genotype(normal=nothing)\nbest = {PRINTED}",
    "a mark of the byte order": f"\ufeff{PRINTED}",
    "Windows' ends of lines": PRINTED.replace(", (", ",\r\n ("),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_genotype(form: str) -> None:
    assert Genotype.from_text(FORMS[form]) == V2
    assert Genotype.from_text(FORMS[form], layers=8) == V2.with_layers(8)
    # As an argument of the command line too.
    assert Genotype.load(FORMS[form]) == V2


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_files_in_any_encoding(form: str, encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "genotype.txt"
    path.write_bytes(FORMS[form].lstrip("\ufeff").encode(encoding))
    assert Genotype.load(path) == V2
    path.write_bytes(codecs.BOM_UTF16_BE + FORMS[form].lstrip("\ufeff").encode("utf-16-be"))
    assert Genotype.load(path) == V2


GENOTYPES_PY = f"""
from collections import namedtuple

Genotype = namedtuple('Genotype', 'normal normal_concat reduce reduce_concat')

# OLD = Genotype(normal=[('max_pool_3x3', 0)], normal_concat=[2], reduce=[], reduce_concat=[2])
V1 = Genotype(
  normal = [
    ('sep_conv_3x3', 1),
    ('sep_conv_3x3', 0),  # the strongest
  ],
  normal_concat = [2],
  reduce = [('max_pool_3x3', 0), ('max_pool_3x3', 1)],
  reduce_concat = range(2, 3)
)
V2 = {PRINTED}
DARTS = V2   # the one to use
def genotype(self): return Genotype(normal=self.normal)
"""


def test_a_file_of_many(tmp_path: Path) -> None:
    folder = tmp_path / "with # in its name"
    folder.mkdir()
    path = folder / "genotypes#1.py"
    path.write_text(GENOTYPES_PY.rpartition("def ")[0])
    assert Genotype.load(f"{path}#V2") == Genotype.load(f"{path}#DARTS") == V2
    assert Genotype.load(f"{path}#V1", layers=8).joined(0) == (2,)
    with pytest.raises(ValueError, match="must be one genotype, or FILE#NAME with one of V1, V2"):
        Genotype.load(path)
    with pytest.raises(ValueError, match="must have a genotype 'V3', got V1, V2"):
        Genotype.load(f"{path}#V3")
    V2.save(folder / "genotype.json")
    assert Genotype.load(folder) == V2
    many = {"a": V2.to_json(), "b": PRINTED}
    (folder / "many.json").write_text(json.dumps(many), encoding="utf-8-sig")
    assert Genotype.load(f"{folder / 'many.json'}#a") == Genotype.load(f"{folder / 'many.json'}#b") == V2


def test_strings_of_nasbench201_in_a_log() -> None:
    text = "|nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|+|skip_connect~0|avg_pool_3x3~1|nor_conv_1x1~2|"
    log = f"epoch 3: Structure(4 nodes with |none~0|+|none~0|none~1|)\nepoch 4: Structure(4 nodes with {text})\n"
    assert Genotype.from_text(log).to_nb201() == text


def test_normal_and_reduction_cells_may_join_different_nodes() -> None:
    """AmoebaNet joins [4, 5, 6] and [3, 4, 6]; its nodes are five."""
    normal = (
        "[('avg_pool_3x3', 0), ('max_pool_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_5x5', 2), ('sep_conv_3x3', 0), "
    )
    normal += "('avg_pool_3x3', 3), ('sep_conv_3x3', 1), ('skip_connect', 1), ('skip_connect', 0), ('avg_pool_3x3', 1)]"
    text = f"Genotype(normal={normal}, normal_concat=[4, 5, 6], reduce={normal}, reduce_concat=[3, 4, 6])"
    amoeba = Genotype.from_text(text, layers=6)
    assert [amoeba.joined(i) for i in range(3)] == [(4, 5, 6), (4, 5, 6), (3, 4, 6)]
    assert amoeba.steps == 5
    assert amoeba.to_text() == text
    data = amoeba.to_json()
    assert data["concat"] == [[4, 5, 6], [3, 4, 6]]
    assert Genotype.from_json(json.loads(json.dumps(data))) == amoeba
    assert Genotype.from_text(str(amoeba)) == amoeba
    # Nodes beyond the last one that is joined are there as well.
    short = Genotype.from_text(text.replace("[4, 5, 6]", "[2, 3]").replace("[3, 4, 6]", "[2, 3]"), layers=6)
    assert (short.concat, short.steps, short.to_json()["steps"]) == ((2, 3), 5, 5)
    assert Genotype.from_json(short.to_json()) == Genotype.from_text(str(short)) == short


def test_files_without_new_fields_are_as_before() -> None:
    assert set(V2.to_json()) == {"version", "inputs", "genes", "seq", "concat", "reductions"}
    assert V2.to_json()["concat"] == [2, 3, 4, 5]


def test_published_dartopti_networks_join_every_node() -> None:
    """Their concat is that of the supernet; all published counts are of networks that join all nodes."""
    assert Genotype.load("ResNet50_cifar10_edge").concat == (2, 3, 4, 5, 6, 7)
    assert Genotype.load("ResNet50_cifar10_edge", reductions="from_file").concat == (4, 5, 6, 7)


# ---- what is written


@pytest.mark.parametrize("name", architectures())
def test_published_genotypes_are_written_and_read_back(name: str) -> None:
    genotype = Genotype.load(name)
    assert Genotype.from_text(genotype.to_text(), layers=genotype.layers) == genotype
    assert Genotype.from_text(str(genotype)) == genotype
    assert ("normal=" in genotype.to_text()) == (len(genotype.genes) == 2)
    assert Genotype.from_text(f"12:00 search\n{genotype}\nrule sparse, steps 3 of 4\ngenotype in runs/x\n") == genotype


def test_darts_form_is_that_of_darts() -> None:
    listed = PRINTED.replace("range(2, 6)", "[2, 3, 4, 5]")
    assert V2.to_text() == listed
    assert "('sep_conv_3x3', 2, 0)" in Genotype.load("FairDARTS_a").to_text()


@st.composite
def genotypes(draw: st.DrawFn) -> Genotype:
    """Any value: shared genes, own concats, nodes that nothing joins."""
    inputs = draw(st.integers(1, 3))
    steps = draw(st.integers(1, 5))
    nodes = list(range(inputs, inputs + steps))
    edges = [(target, source) for target in nodes for source in range(target)]
    entry = st.builds(
        lambda op, edge: Gene(op, *edge), st.sampled_from(sorted(spaces.known_ops())), st.sampled_from(edges)
    )
    genes = draw(st.lists(st.lists(entry, max_size=6, unique=True), min_size=1, max_size=4))
    seq = draw(st.permutations([*range(len(genes)), *draw(st.lists(st.integers(0, len(genes) - 1), max_size=4))]))
    reductions = draw(st.none() | st.lists(st.integers(0, len(seq) - 1), max_size=3))
    one = st.lists(st.sampled_from(nodes), min_size=1, unique=True)
    concats = draw(st.lists(one, min_size=len(genes), max_size=len(genes)) | st.lists(one, min_size=1, max_size=1))
    if len(concats) != len(genes):
        return Genotype(genes, seq, concats[0], reductions, inputs, steps=steps)  # type: ignore[arg-type]
    return Genotype(genes, seq, (), reductions, inputs, concats, steps)  # type: ignore[arg-type]


@settings(max_examples=300, deadline=None)
@given(genotypes())
def test_any_genotype_is_written_and_read_back(genotype: Genotype) -> None:
    thirds = spaces.third_reductions(genotype.layers)
    same = replace(genotype, reductions=None) if genotype.reductions == thirds else genotype
    assert Genotype.from_json(json.loads(json.dumps(genotype.to_json()))) == genotype
    assert Genotype.from_text(json.dumps(genotype.to_json())) == genotype
    assert Genotype.from_text(str(genotype)) == same
    if genotype.inputs == 1 and "~" in genotype.to_text():
        assert Genotype.from_text(genotype.to_text()).to_nb201() == genotype.to_nb201()
    else:
        assert Genotype.from_text(genotype.to_text(), layers=genotype.layers) in (genotype, same)


def test_the_text_itself_on_the_command_line() -> None:
    runner = CliRunner()
    by_text = runner.invoke(cli.app, ["describe", PRINTED, "--layers", "5", "--channels", "4", "--json"])
    by_name = runner.invoke(cli.app, ["describe", "DARTS_V2", "--layers", "5", "--channels", "4", "--json"])
    assert by_text.output == by_name.output
