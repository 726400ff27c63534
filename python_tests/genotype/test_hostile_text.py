"""Whatever is put before the readers: ValueError, TypeError or OSError with the place, in bounded time and memory."""

from __future__ import annotations

import json
import lzma
import re
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from fuzzing import fuzz
from hypothesis import given
from hypothesis import strategies as st

from ddarts_ext.distance.op_scores import load_scores
from ddarts_ext.genotype import Genotype, architectures, derive, literals
from ddarts_ext.tables.nasbench201 import COLUMNS, NASBench201Table

PAIR = Genotype.load("DARTS_V2").to_text()
SEEDS = [
    *(Genotype.load(name).to_text() for name in architectures()[:6]),
    *(str(Genotype.load(name)) for name in ("ResNet18", "D-DARTS_sparse_cifar10")),
    json.dumps(Genotype.load("ResNet50").to_json()),
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|+|skip_connect~0|avg_pool_3x3~1|nor_conv_1x1~2|",
    "A = " + PAIR + "\nB = A\n",
    str({"normal": [("skip_connect", 0)], "normal_concat": [2], "reduce": [], "reduce_concat": [2]}),
    "(((0, 3), (1, 3)), ((0, 1), (1, 1)))",
]
PIECES = [
    *"()[]{},:=|~+-<>'\"#\\\n\0\ufeff \ud800é٣",
    "range(",
    "np.int64(",
    "list(",
    "Genotype(",
    "normal=",
    "genes=",
    "reduce_concat=",
    "10**12",
    "999999999999999999999",
    "1e999",
    "-1",
    "None",
    "NaN",
    "null",
    "true",
    "version",
    "seq ",
    "concat ",
    "cells, reductions [",
    "cell 0 (normal): ",
    "none~0",
    "sep_conv_3x3",
    "0x1",
    "* 3",
    "'skip_connect:2<-1'",
]


@st.composite
def broken_texts(draw: st.DrawFn) -> str:
    """A text that is read, with parts taken out, doubled, exchanged or put in."""
    text = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(0, 6))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 30)))
        piece = draw(st.sampled_from(PIECES) | st.text(max_size=5) | st.sampled_from([text[start:end] * 2]))
        text = text[:start] + piece + text[end:]
    return text


def refused(function: Any, *arguments: Any, **options: Any) -> str:
    """The message with which something is refused, empty if it is taken; any other error passes on."""
    try:
        function(*arguments, **options)
    except (ValueError, TypeError, OSError) as error:
        message = str(error)
        assert len(message) < 3000
        return message
    return ""


@fuzz(1200)
@given(broken_texts(), st.sampled_from(["", "A", "B", "é", "("]))
def test_texts(text: str, name: str) -> None:
    message = refused(Genotype.from_text, text, layers=8, name=name)
    assert not message or message.startswith(("genotype: ", "reductions: "))


@fuzz(1200)
@given(
    st.binary(max_size=60) | broken_texts().map(lambda text: text.encode("utf-8", "surrogatepass")), st.integers(0, 9)
)
def test_files(tmp_path_factory: pytest.TempPathFactory, content: bytes, encoding: int) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.txt"
    path.write_bytes([b"", b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf"][encoding % 4] + content)
    refused(Genotype.load, path)
    refused(Genotype.load, f"{path}#a")
    refused(load_scores, path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(PIECES) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
KEYS = st.sampled_from(
    [
        "version",
        "genes",
        "seq",
        "concat",
        "steps",
        "inputs",
        "reductions",
        "normal",
        "normal_concat",
        "reduce",
        "reduce_concat",
        "nb201",
        "concats",
    ]
)
ENTRY = st.sampled_from(["skip_connect:2<-0", "simple_conv_1x1:3<-2", ["sep_conv_3x3", 2, 1], ["none", 5, -1]])
VALUE = JSON | st.lists(st.lists(ENTRY | JSON, max_size=3), max_size=3) | st.lists(st.integers(-1, 1001), max_size=4)


@fuzz(1200)
@given(st.dictionaries(KEYS | st.text(max_size=5), VALUE, max_size=6))
def test_json(data: dict[str, Any]) -> None:
    refused(Genotype.from_json, data)
    refused(Genotype.from_json, data, reductions="from_file")
    refused(Genotype.from_text, json.dumps(data), layers=3)


@fuzz(1200)
@given(
    JSON | st.fixed_dictionaries({"version": st.just(1), "scores": JSON | st.dictionaries(st.text(max_size=4), JSON)})
)
def test_score_files(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "scores.json"
    path.write_text(json.dumps(data))
    message = refused(load_scores, path)
    assert not message or message.startswith("scores: ")
    if isinstance(data, dict):
        refused(load_scores, data.get("scores"))


HEADER = ",".join(("index", "arch", *COLUMNS))
CELL = st.sampled_from(["", "0", "1", "90.5", "nan", "inf", "-1e400", "x", '"', "|none~0|", "\0", "9" * 5000, ",", "é"])


@fuzz(1200)
@given(
    st.sampled_from([HEADER, "index,arch,cifar10_valid,cifar10_test", "arch", ""]),
    st.lists(st.lists(CELL, max_size=9).map(",".join), max_size=4).map("\n".join),
    st.binary(max_size=3),
    st.booleans(),
)
def test_tables(tmp_path_factory: pytest.TempPathFactory, header: str, rows: str, tail: bytes, packed: bool) -> None:
    path = tmp_path_factory.getbasetemp() / ("table.csv.xz" if packed else "table.csv")
    content = f"{header}\n{rows}".encode()
    path.write_bytes((lzma.compress(content) if packed else content) + tail)

    def read() -> None:
        table = NASBench201Table.load(path)
        for arch in table:
            refused(table.__getitem__, arch)

    message = refused(read)
    assert not message or message.startswith("nasbench201: ")


# ---- large and deep


MANY = 1_000_000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Genotype(genes=" + "[" * MANY, r"must be of at most 20 levels"),
        ("[" * MANY + "]" * MANY, "must be of at most 20 levels"),
        ('{"genes": ' + "[" * MANY + "]" * MANY + "}", "levels|the text is not JSON"),
        ("{" * MANY, "the text is not JSON"),
        ("Genotype(normal=" + "-" * MANY + "1)", "normal must be a name, a number, a list"),
        ("Genotype(normal=" + "a." * MANY + "b)", "normal must be a name, a number, a list"),
        ("a." * MANY + "b(", "the text must be one Genotype"),
        ("a" * MANY, "the text must be one Genotype"),
        ("Genotype(normal=[" * 100_000, "text line 1|levels|must be a name"),
        ("x = " * MANY, "the text must be one Genotype"),
        ("9" * MANY, "the text must be one Genotype"),
        (f"Genotype(genes=[[('skip_connect', 2, {'9' * MANY})]])", "genes.0..0..2. must be a name, a number"),
        (PAIR.replace("[2, 3, 4, 5]", "range(10**12)"), r"normal_concat\[0\] must be a name, a number"),
        (PAIR.replace("[2, 3, 4, 5]", "range(1000000000000)"), "normal_concat must be a range of at most 1000"),
        (PAIR.replace("[2, 3, 4, 5]", f"range({'9' * 18}, 0, -1)"), "normal_concat must be a range of at most 1000"),
        (PAIR.replace("[2, 3, 4, 5]", "range(2, 6, 0)"), "normal_concat must have a step that is not 0"),
        (
            "Genotype(genes=[" + "[('skip_connect', 2, 0)], " * 300_000 + "], concat=[2])",
            "must be of at most 500000 values",
        ),
        (
            "Genotype(genes=[[" + "('skip_connect', 2, 0), " * 110_000 + "]], concat=[2])",
            "at most 100000 entries together",
        ),
        (
            "Genotype(genes=[[" + "('skip_connect', 2, 0), " * 90_000 + "]], concat=[2])",
            "entries must be distinct, got skip",
        ),
        ("Genotype(genes=[[]], concat=[2], seq=[" + "0, " * 400_000 + "])", "layers must be in 1..10000, got 400000"),
        (
            json.dumps({"version": 1, "genes": [[]] * 10_000, "concat": [999]}),
            "must have at most 1000000 edges together",
        ),
        ("|" + "none~0|" * MANY, "NB201 string must have fewer than 1000 nodes"),
        ("|none~0|" + "+|none~0|" * 200_000, "NB201 string must have fewer than 1000 nodes"),
        ("1 cells, reductions [" + "0, " * 400_000, "text line 1: expected"),
        ("999999999 cells, reductions []", "the text must have 1..10000 cells"),
        ("9 cells, reductions []\n" * 100_000, "must have lines for all 9 cells, got 0"),
        (" " * 9_000_000, "the text must have at most 8000000 characters"),
        ("#" + "\n" * MANY, "the text must be one Genotype"),
        ("'" * MANY, "the text must be one Genotype"),
    ],
    ids=lambda value: value[:40],
)
def test_large_and_deep_texts(text: str, message: str) -> None:
    began = time.process_time()
    found = refused(Genotype.from_text, text)
    assert time.process_time() - began < 10
    assert found.startswith("genotype: ")
    assert re.search(message, found), found


def test_memory_is_bounded_by_the_number_of_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a hundredth of what is allowed, since tracing is slow; the text alone takes 0.8 MB."""
    monkeypatch.setattr(literals, "MAX_VALUES", literals.MAX_VALUES // 100)
    text = "Genotype(genes=[" + "[], " * 190_000
    tracemalloc.start()
    assert "must be of at most 5000 values" in refused(Genotype.from_text, text)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3e6


@pytest.mark.parametrize("layers", [0, -1, 10**9, 10**30])
def test_numbers_of_cells(layers: int) -> None:
    with pytest.raises(ValueError, match=r"genotype: layers must be in 1\.\.10000, got"):
        Genotype.from_text(PAIR, layers=layers)
    with pytest.raises(ValueError, match=r"genotype: layers must be in 1\.\.10000, got"):
        Genotype.load("DARTS_V2", layers=layers)
    with pytest.raises(ValueError, match=r"derive: cells must be in 1\.\.10000, got"):
        derive(Genotype.load("D-DARTS_edge_cifar10"), layers)


def test_ten_million_edges_are_refused_by_their_limit() -> None:
    entry = ("skip_connect", 2, 0)
    with pytest.raises(ValueError, match="genes must hold at most 100000 entries together, got 10000000"):
        Genotype(((entry,) * 5_000_000,) * 2)  # type: ignore[arg-type]


def test_an_archive_that_grows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.csv.xz"
    path.write_bytes(lzma.compress(b"0" * (80 << 20)))
    with pytest.raises(ValueError, match="nasbench201: table must have at most 64 MiB"):
        NASBench201Table.load(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="cannot be read: "):
        NASBench201Table.load(path)
    rows = "\n".join(f"{i},a{i},1,1" for i in range(100_002))
    (tmp_path / "table.csv").write_text(f"index,arch,cifar10_valid,cifar10_test\n{rows}")
    with pytest.raises(ValueError, match="nasbench201: table must have at most 100000 rows"):
        NASBench201Table.load(tmp_path / "table.csv")
