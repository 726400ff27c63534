"""Text as data: words or characters in three parts, from a folder, a file, or what comes with Python."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

KINDS = {"text": "words", "characters": "characters"}
"""What ``--data KIND:PATH`` reads, by the kind."""
PARTS = ("train", "valid", "test")
_FILES = ("ptb.{}.txt", "{}.txt", "wiki.{}.tokens")
MOST_WORDS = 10_000
"""Of a text that is no prepared corpus; as many as the Penn Treebank's have."""
END, RARE = "<eos>", "<unk>"
_PIECES = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True, eq=False)
class Corpus:
    """A text as numbers of words: train, valid, test int64 [N]; vocabulary: the words by number.

    kind: ``words`` or ``characters``. note: what a user should know about how it was read.
    """

    name: str
    kind: str
    vocabulary: tuple[str, ...]
    train: Tensor
    valid: Tensor
    test: Tensor
    note: str = ""

    @property
    def classes(self) -> tuple[str, ...]:
        """What is predicted: a word of the vocabulary."""
        return self.vocabulary

    @property
    def channels(self) -> int:
        """Of images: a text has none."""
        return 0

    def to(self, device: torch.device | str) -> Corpus:
        """The same text on ``device``."""
        return replace(self, **{part: getattr(self, part).to(device) for part in PARTS})

    def identity(self) -> dict[str, Any]:
        """Plain data for config.json: what tells this text from others, wherever its files lie."""
        digest = hashlib.blake2b("\n".join(self.vocabulary).encode("utf-8", "surrogatepass"), digest_size=16)
        for part in PARTS:
            digest.update(getattr(self, part).cpu().numpy().tobytes())
        sizes = {part: len(getattr(self, part)) for part in PARTS}
        return {**sizes, "kind": self.kind, "vocabulary": len(self.vocabulary), "digest": digest.hexdigest()}


def is_text(data: Any) -> bool:
    """Whether ``data`` is a text, or names one."""
    return isinstance(data, Corpus) or (isinstance(data, str) and data.partition(":")[0] in KINDS)


def load_text(data: Any) -> Corpus:
    """Read a text.

    data: ``text:PATH`` for words, ``characters:PATH`` for characters, ``text`` or ``characters`` for the reference
    texts that come with Python, or a :class:`Corpus`, which is handed through. PATH: a folder with ptb.train.txt,
    ptb.valid.txt and ptb.test.txt (or train.txt ..., wiki.train.tokens ...), which is read as it is prepared: words are
    what blanks separate, every line ends with one more, and all of them are the vocabulary; or one text file, whose
    first 80 % train, the next 10 % validate and the last 10 % test, in lower case, with marks as words and at most
    10,000 words that occur twice or more, the rest being ``<unk>``.

    Raises ValueError, TypeError or OSError in one line.
    """
    if isinstance(data, Corpus):
        return data
    if not is_text(data):
        raise ValueError(f"data: text must be text:PATH or characters:PATH, or text or characters, got {data!r}")
    prefix, _, where = str(data).partition(":")
    kind = KINDS[prefix]
    if not where:
        return _of_one(_with_python(), kind, prefix, "the reference texts that come with this Python")
    path = Path(where)
    if not path.exists():
        raise FileNotFoundError(f"data: text must be a folder or a file, and {where!r} does not exist")
    if path.is_dir():
        return _of_folder(path, kind, f"{prefix}:{path.name}")
    return _of_one(_read(path), kind, f"{prefix}:{path.name}", "")


def _with_python() -> str:
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise FileNotFoundError("data: text must be text:PATH, as this Python has no reference texts") from error
    return "\n".join(topics[name] for name in sorted(topics))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"data: {path} must be text in UTF-8: {error.reason} at byte {error.start}") from error


def _of_folder(path: Path, kind: str, name: str) -> Corpus:
    for form in _FILES:
        files = [path / form.format(part) for part in PARTS]
        if all(file.is_file() for file in files):
            break
    else:
        raise FileNotFoundError(
            f"data: {path} must have ptb.train.txt, ptb.valid.txt and ptb.test.txt, or train.txt ..."
        )
    texts = [_read(file) for file in files]
    if kind == "characters":
        return _numbered(name, kind, [list(text) for text in texts], None, "")
    pieces = [[word for line in text.splitlines() for word in (*line.split(), END)] for text in texts]
    return _numbered(name, kind, pieces, None, "")


def _of_one(text: str, kind: str, name: str, note: str) -> Corpus:
    pieces = list(text) if kind == "characters" else [
        word for line in text.lower().splitlines() for word in (*_PIECES.findall(line), END)
    ]  # fmt: skip
    first, second = int(0.8 * len(pieces)), int(0.9 * len(pieces))
    parts = [pieces[:first], pieces[first:second], pieces[second:]]
    known = None
    if kind == "words":
        counts = Counter(parts[0])
        known = {word for word, count in counts.most_common(MOST_WORDS - 1) if count > 1} | {RARE}
    return _numbered(name, kind, parts, known, note)


def _numbered(name: str, kind: str, parts: Sequence[Sequence[str]], known: set[str] | None, note: str) -> Corpus:
    """known: the words that are not replaced; None for all of them."""
    for part, pieces in zip(PARTS, parts, strict=True):
        if len(pieces) < 2:
            raise ValueError(f"data: {part} of {name} must have 2 or more {kind}, got {len(pieces)}")
    numbers: dict[str, int] = {}
    found = [
        torch.tensor([numbers.setdefault(p if known is None or p in known else RARE, len(numbers)) for p in pieces])
        for pieces in parts
    ]
    train, valid, test = found
    return Corpus(name, kind, tuple(numbers), train, valid, test, note)


def columns(words: Tensor, batch: int) -> Tensor:
    """A text [N] as ``batch`` columns of consecutive words, [N // batch, batch]; what is left over is cut off.

    Raises ValueError where a column would have fewer than 2 words.
    """
    rows = len(words) // batch
    if rows < 2:
        raise ValueError(f"data: batch must leave 2 or more words a column, got {batch} columns of {len(words)} words")
    return words[: rows * batch].view(batch, rows).t().contiguous()
