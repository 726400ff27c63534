"""Where the figures of every epoch go beside history.jsonl: one small protocol, and writers for what people use."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Logger(Protocol):
    """What :class:`ddarts_ext.Searcher` and :class:`ddarts_ext.Trainer` take as ``loggers``."""

    def log(self, epoch: int, figures: Mapping[str, float]) -> None:
        """An epoch, counted from 0, is over; ``figures`` by names as ``train/loss``."""
        ...

    def close(self) -> None:
        """The run is over, or was interrupted; nothing follows."""
        ...


def check_loggers(command: str, loggers: Sequence[Any]) -> tuple[Logger, ...]:
    """Raises TypeError for what is no logger."""
    for logger in loggers:
        if not isinstance(logger, Logger):
            raise TypeError(f"{command}: loggers must have log and close, got {type(logger).__name__}")
    return tuple(loggers)


def figures_of(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a record of the history by one name each; lists and texts are left out."""
    return {name: value for name, value in _numbers(record, "") if name != "epoch"}


def _numbers(record: Mapping[str, Any], before: str) -> Iterator[tuple[str, float]]:
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{before}{name}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield before + name, value


class CSVLogger:
    """A table with a line for each epoch. A run that goes on adds to the lines of its earlier epochs.

    Figures that appear later than the first epoch get columns of their own, empty above.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.rows: list[dict[str, Any]] = []
        if self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as file:
                self.rows = [dict(row) for row in csv.DictReader(file)]

    def log(self, epoch: int, figures: Mapping[str, float]) -> None:
        self.rows = [row for row in self.rows if int(row["epoch"]) < epoch]  # what a resumed run does again
        self.rows.append({"epoch": epoch, **figures})
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, columns, restval="")
            table.writeheader()
            table.writerows(self.rows)

    def close(self) -> None:
        pass


class TensorBoardLogger:
    """Scalars for TensorBoard in a folder; needs the package tensorboard."""

    def __init__(self, folder: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ValueError(
                "loggers: TensorBoardLogger needs the package tensorboard (pip install 'ddarts_ext[tensorboard]'): "
                f"{error}"
            ) from error
        writer: Any = SummaryWriter  # without types
        self.writer: Any = writer(str(folder))

    def log(self, epoch: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self.writer.add_scalar(name, value, epoch)
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class WandbLogger:
    """A run of Weights & Biases, made by ``wandb.init(**settings)``; needs the package wandb."""

    def __init__(self, **settings: Any) -> None:
        try:
            import wandb
        except ImportError as error:
            raise ValueError(f"loggers: WandbLogger needs the package wandb (pip install wandb): {error}") from error
        self.run = wandb.init(**settings)

    def log(self, epoch: int, figures: Mapping[str, float]) -> None:
        self.run.log(dict(figures), step=epoch)

    def close(self) -> None:
        self.run.finish()
