"""Text as data: what is a word, which part is which, and what refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ddarts_ext.data.segments import Segment, drawn, in_order
from ddarts_ext.data.text import Corpus, columns, is_text, load_text


def words(corpus: Corpus, part: str) -> list[str]:
    return [corpus.vocabulary[i] for i in getattr(corpus, part).tolist()]


def test_a_prepared_corpus_is_read_as_it_is(tmp_path: Path) -> None:
    for part, text in (("train", " no it was\n <unk> no\n"), ("valid", "it N\n"), ("test", "was $ new\n")):
        (tmp_path / f"ptb.{part}.txt").write_text(text)
    corpus = load_text(f"text:{tmp_path}")
    assert corpus.vocabulary == ("no", "it", "was", "<eos>", "<unk>", "N", "$", "new")
    assert words(corpus, "train") == ["no", "it", "was", "<eos>", "<unk>", "no", "<eos>"]
    assert words(corpus, "valid") == ["it", "N", "<eos>"]
    assert words(corpus, "test") == ["was", "$", "new", "<eos>"]
    assert "".join(words(load_text(f"characters:{tmp_path}"), "valid")) == "it N\n"


def test_plain_names_of_the_three_files(tmp_path: Path) -> None:
    for part in ("train", "valid", "test"):
        (tmp_path / f"{part}.txt").write_text(f"{part} a b\n")
    assert words(load_text(f"text:{tmp_path}"), "test") == ["test", "a", "b", "<eos>"]


def test_one_file_is_split_in_order_and_rare_words_are_one(tmp_path: Path) -> None:
    file = tmp_path / "story.txt"
    file.write_text("Twice, twice; once!\n" + "the end\n" * 20)
    corpus = load_text(f"text:{file}")
    together = [*words(corpus, "train"), *words(corpus, "valid"), *words(corpus, "test")]
    assert together[:7] == ["twice", "<unk>", "twice", "<unk>", "<unk>", "<unk>", "<eos>"]
    assert [len(corpus.train), len(corpus.valid), len(corpus.test)] == [53, 7, 7]
    letters = load_text(f"characters:{file}")
    assert "".join(words(letters, "train")).startswith("Twice, twice; once!\nthe end")


def test_the_reference_texts_that_come_with_python() -> None:
    corpus = load_text("text")
    assert len(corpus.train) > 50_000
    assert "statement" in corpus.vocabulary
    assert "come with this Python" in corpus.note
    assert corpus.identity() == load_text("text").identity()
    assert corpus.identity()["digest"] != load_text("characters").identity()["digest"]


def test_what_names_a_text() -> None:
    assert [is_text(data) for data in ("text", "text:a", "characters:b", "digits", "texts", Path("text"), None)] == [
        True, True, True, False, False, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        ("text:nowhere", FileNotFoundError, "text must be a folder or a file, and 'nowhere' does not exist"),
        ("digits", ValueError, "text must be text:PATH or characters:PATH"),
    ],
)
def test_what_is_not_there_is_said(data: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=f"^data: {words}"):
        load_text(data)


def test_folders_files_and_encodings_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"must have ptb.train.txt, ptb.valid.txt"):
        load_text(f"text:{tmp_path}")
    (tmp_path / "short").write_text("a b")
    with pytest.raises(ValueError, match=r"valid of text:short must have 2 or more words, got"):
        load_text(f"text:{tmp_path / 'short'}")
    (tmp_path / "latin").write_bytes(b"caf\xe9 " * 30)
    with pytest.raises(ValueError, match=r"must be text in UTF-8: .* at byte 3"):
        load_text(f"text:{tmp_path / 'latin'}")


def test_columns_are_consecutive_words() -> None:
    found = columns(torch.arange(11), 3)
    assert found.tolist() == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]
    with pytest.raises(ValueError, match="batch must leave 2 or more words a column, got 6 columns of 11 words"):
        columns(torch.arange(11), 6)


@pytest.mark.parametrize("spread", [0.0, 5.0])
def test_segments_cover_the_text_once(spread: float) -> None:
    found = drawn(1000, 35, torch.Generator().manual_seed(1), spread=spread, longest=55)
    assert [segment.start for segment in found[1:]] == [s.start + s.length for s in found[:-1]]
    assert found[0].start == 0
    assert found[-1].start + found[-1].length in (998, 999)
    lengths = [segment.length for segment in found[:-1]]
    assert set(lengths) <= {35, 17} if not spread else 5 <= min(lengths) <= max(lengths) <= 55
    assert [(s.start, s.length) for s in in_order(8, 3)] == [(0, 3), (3, 3), (6, 1)]


def test_one_segment_in_twenty_is_half_as_long() -> None:
    found = drawn(400_000, 35, torch.Generator().manual_seed(0))
    assert 0.04 < sum(segment.length == 17 for segment in found) / len(found) < 0.06


def test_a_segment_predicts_the_next_row() -> None:
    given, targets = Segment(2, 3).of(torch.arange(20).view(10, 2))
    assert given[:, 0].tolist() == [4, 6, 8]
    assert targets[:, 0].tolist() == [6, 8, 10]
