"""NAS-Bench-201 as a table: accuracies of all its 15,625 architectures, and where one stands among them."""

from __future__ import annotations

import csv
import io
import lzma
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ddarts_ext.genotype import Genotype

CLASSES = {"cifar10": 10, "cifar100": 100, "imagenet16": 120}
"""Of the data sets that the benchmark trained on."""
DATASETS = tuple(CLASSES)
SPLITS = ("valid", "test")
MAX_ROWS = 100_000
MAX_BYTES = 64 << 20
_UNPACKING_BYTES = 256 << 20  # more than the largest dictionary that xz takes by itself
"""Of a table in CSV, unpacked; the benchmark has 15,625 rows and 2 MiB."""
COLUMNS = tuple(f"{dataset}_{split}" for dataset in DATASETS for split in SPLITS)
# In NATS-Bench, CIFAR-10 validation accuracies are of networks that were trained on half of its training images.
_NATS = {"cifar10": ("cifar10-valid", "cifar10"), "cifar100": ("cifar100",) * 2, "imagenet16": ("ImageNet16-120",) * 2}

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Accuracy:
    """Percent on one data set after 200 epochs, mean over seeds. Ranks count from 1, the best of the table; equal
    accuracies share a rank. None where the table is not read as a whole."""

    valid: float
    test: float
    valid_rank: int | None
    test_rank: int | None


@dataclass(frozen=True)
class Figures:
    """What a table says of one architecture. accuracies: by data set, cifar10, cifar100 and imagenet16."""

    arch: str
    index: int
    architectures: int
    accuracies: dict[str, Accuracy]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.arch} (index {self.index} of {self.architectures})"]
        for name, accuracy in self.accuracies.items():
            place = "" if accuracy.test_rank is None else f", rank {accuracy.test_rank:,} of {self.architectures:,}"
            lines.append(f"  {name}: validation {accuracy.valid:.3f} %, test {accuracy.test:.3f} %{place}")
        return "\n".join(lines)


class NASBench201Table:
    """Accuracies by architecture: ``table["|nor_conv_3x3~0|+..."]`` gives :class:`Figures`, as does a genotype.

    archs: strings. values: percent [archs, 6], in the order of ``COLUMNS``; NaN where a data set is unknown. indices:
    of the architectures in the benchmark, their places in ``archs`` when left out. read: for tables too large to hold,
    reads the row of one place instead.
    """

    def __init__(
        self,
        archs: Sequence[str],
        values: Values | None,
        indices: Sequence[int] | None = None,
        read: Callable[[int], Values] | None = None,
    ) -> None:
        if values is not None and values.shape != (len(archs), len(COLUMNS)):
            raise ValueError(f"nasbench201: values must be [{len(archs)}, {len(COLUMNS)}], got {list(values.shape)}")
        if values is None and read is None:
            raise ValueError("nasbench201: values or read must be given, got neither")
        self.archs = tuple(archs)
        self._places = {arch: i for i, arch in enumerate(self.archs)}
        self.indices = tuple(range(len(self.archs)) if indices is None else indices)
        self._values, self._read = values, read

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> NASBench201Table:
        """Read a table: CSV (also ``.csv.xz``), or a file (``.pickle.pbz2``) or folder of NATS-Bench.

        A CSV has the columns ``index``, ``arch`` and those in ``COLUMNS``, of which CIFAR-10's must be there.
        NATS-Bench needs the package nats_bench, and a folder of it gives no ranks; its files are pickles, which can run
        code when they are read: load none that you do not trust.
        """
        file = Path(path)
        if not file.exists():
            raise FileNotFoundError(
                f"nasbench201: table must be a file or folder, and {os.fspath(path)!r} is not there"
            )
        if file.is_dir() or file.name.endswith(".pbz2"):
            return _from_nats_bench(file)
        return cls(*_from_csv(file))

    def __len__(self) -> int:
        return len(self.archs)

    def __iter__(self) -> Iterator[str]:
        return iter(self.archs)

    def __getitem__(self, arch: str | Genotype) -> Figures:
        """Raises ValueError for an architecture that the table does not have."""
        text = (Genotype.from_nb201(arch.strip()) if isinstance(arch, str) else arch).to_nb201()
        if text not in self._places:
            raise ValueError(f"nasbench201: arch must be one of the table's {len(self)}, got {text!r}")
        place = self._places[text]
        row = self._read(place) if self._values is None and self._read is not None else self._row(place)
        accuracies = {}
        for i, dataset in enumerate(DATASETS):
            columns = 2 * i, 2 * i + 1
            if not np.isnan(row[list(columns)]).all():
                valid, test = (float(row[column]) for column in columns)
                accuracies[dataset] = Accuracy(valid, test, *(self._rank(column, row[column]) for column in columns))
        return Figures(text, self.indices[place], len(self), accuracies)

    def accuracy(self, arch: str | Genotype, dataset: str, argument: str) -> Accuracy:
        """Of one architecture on one data set. Raises ValueError naming ``argument`` where the table has no such data
        set."""
        known = self[arch].accuracies
        if dataset not in known:
            raise ValueError(f"{argument} must be one of {', '.join(known)}, which the table has, got {dataset!r}")
        return known[dataset]

    def column(self, name: str) -> Values:
        """All accuracies of one of ``COLUMNS``, in the order of ``archs``."""
        if name not in COLUMNS or self._values is None:
            raise ValueError(f"nasbench201: column must be one of {', '.join(COLUMNS)} of a whole table, got {name!r}")
        found: Values = self._values[:, COLUMNS.index(name)]
        return found

    def _row(self, place: int) -> Values:
        assert self._values is not None
        row: Values = self._values[place]
        return row

    def _rank(self, column: int, value: float) -> int | None:
        if self._values is None or np.isnan(value):
            return None
        return 1 + int((self._values[:, column] > value).sum())


def _from_csv(path: Path) -> tuple[list[str], Values, list[int]]:
    try:
        rows = csv.reader(io.StringIO(_content(path).decode("utf-8-sig"), newline=""))
        header = next(rows, [])
        lines = [row for row in islice(rows, MAX_ROWS + 1) if row]
    except (lzma.LZMAError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"nasbench201: table must be CSV or CSV.xz, and {path} cannot be read: {error}") from error
    if len(lines) > MAX_ROWS:
        raise ValueError(f"nasbench201: table must have at most {MAX_ROWS} rows, got more in {path}")
    for column in ("index", "arch", "cifar10_valid", "cifar10_test"):
        if column not in header:
            raise ValueError(f"nasbench201: table must have the column {column}, got {path} without it")
    places = {column: header.index(column) for column in ("index", "arch", *COLUMNS) if column in header}
    archs, indices, values = [], [], np.full((len(lines), len(COLUMNS)), np.nan)
    for number, row in enumerate(lines):
        found = {column: row[place].strip() for column, place in places.items() if place < len(row)}
        if not found.get("arch"):
            raise ValueError(f"nasbench201: table must have an arch in every row, got none in row {number} of {path}")
        archs.append(found["arch"])
        try:
            indices.append(int(found.get("index", "")))
            values[number] = [float(found.get(column) or "nan") for column in COLUMNS]
        except ValueError as error:
            raise ValueError(
                f"nasbench201: table must have numbers in {path}, row {number}: {str(error)[:200]}"
            ) from error
    if np.isinf(values).any():
        raise ValueError(f"nasbench201: table must have finite numbers, got infinity in {path}")
    return archs, values, indices


def _content(path: Path) -> bytes:
    """The bytes of a file, unpacked if they are packed, as long as they are not too many."""
    with path.open("rb") as file:
        packed = file.read(MAX_BYTES + 1)
    content = packed
    if path.suffix == ".xz":
        unpacking = lzma.LZMADecompressor(memlimit=_UNPACKING_BYTES)
        content = unpacking.decompress(packed, MAX_BYTES + 1)
        if not unpacking.eof and len(content) <= MAX_BYTES:
            raise lzma.LZMAError("the file ends before its content")
    if len(content) > MAX_BYTES:
        raise ValueError(f"nasbench201: table must have at most {MAX_BYTES >> 20} MiB, got more in {path}")
    return content


def _from_nats_bench(path: Path) -> NASBench201Table:
    try:
        nats_bench = import_module("nats_bench")
    except ImportError as error:
        raise ValueError(
            f"nasbench201: table {path} is of NATS-Bench, which needs its package (pip install nats_bench): {error}"
        ) from error
    whole = path.is_file()
    api = nats_bench.create(str(path), "tss", fast_mode=not whole, verbose=False)

    def read(index: int) -> Values:
        row = []
        for valid, test in (_NATS[dataset] for dataset in DATASETS):
            for name, key in ((valid, "valid-accuracy"), (test, "test-accuracy")):
                row.append(api.get_more_info(index, name, hp="200", is_random=False)[key])
        return np.array(row, dtype=np.float64)

    archs = list(api.meta_archs)
    if not whole:
        # One file per architecture: reading all of them for a rank would take minutes.
        return NASBench201Table(archs, None, read=read)
    return NASBench201Table(archs, np.stack([read(index) for index in range(len(archs))]))
