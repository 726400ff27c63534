"""What of a run is kept in its folder, when, and what a run that stops says of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol

from torch import nn

from ddarts_ext.runs.finite import check_record, check_sums, check_tensors, named
from ddarts_ext.runs.folder import RunFolder, Saved
from ddarts_ext.runs.ranks import ALONE, Ranks
from ddarts_ext.runs.sums import NotFinite, Sums


class RunState(Protocol):
    """What a run changes. epoch: finished epochs. step: finished steps of the next. under_way: a step has begun and has
    not ended. history: one record per finished epoch."""

    epoch: int
    step: int
    under_way: bool
    history: list[dict[str, Any]]

    def checkpoint(self) -> dict[str, Any]: ...

    def restore(self, checkpoint: dict[str, Any], history: list[dict[str, Any]]) -> None: ...


class Keeping:
    """The folder of a run of ``command``, or none: nothing is written then.

    changeable: dotted paths of settings in config.json that a resumed run may have otherwise. epochs: the one of the
    number of epochs, which may be larger; None where it may not. say: is told what a person should know. ranks: those
    of the run, of which the first one has the folder.
    """

    def __init__(
        self,
        command: str,
        folder: RunFolder | None,
        say: Callable[[str], None],
        *,
        changeable: Collection[str],
        epochs: str | None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.command, self.folder, self.say = command, folder if ranks.first else None, say
        self.ranks = ranks
        self.changeable, self.epochs = changeable, epochs
        if self.folder is not None:
            self.folder.say = say

    @contextmanager
    def session(self) -> Iterator[None]:
        """Within it the folder may be open."""
        if self.folder is None:
            yield
            return
        with self.folder.session():
            yield

    def open(self, config: Mapping[str, Any], *, resume: bool) -> Saved | None:
        """Open the folder: what it has saved, if anything. Nothing is written before :meth:`begin`."""
        if self.folder is None:
            return None
        growing = () if self.epochs is None else (self.epochs,)
        return self.folder.open(config, resume=resume, changeable=self.changeable, growing=growing)

    def begin(self, config: Mapping[str, Any]) -> None:
        """Write the configuration, once all is known to fit."""
        if self.folder is not None:
            self.folder.begin(config)

    def start(self, state: RunState, config: Mapping[str, Any], *, resume: bool, announce: Callable[[], None]) -> None:
        """Open the folder, take up what is there, and begin. announce: before anything is written; may refuse."""
        folder = self.folder

        def found() -> tuple[Any, Any] | None:
            saved = self.open(config, resume=resume)
            return None if saved is None else (saved.content, saved.history)

        saved = self.ranks.from_first(found)
        if saved is not None:
            with nullcontext() if folder is None else folder.restoring():
                state.restore(*saved)
            if folder is not None and self.epochs is not None and folder.config_file.is_file():
                self._say_epochs(state, _at(folder.config(), self.epochs), _at(config, self.epochs))
        announce()
        self.begin(config)
        if state.step:
            self.say(f"{self.command}: continues within epoch {state.epoch + 1}, after step {state.step}")

    def _say_epochs(self, state: RunState, before: Any, now: Any) -> None:
        if before != now:
            self.say(
                f"{self.command}: {now} epochs instead of {before}: from epoch {state.epoch + 1} on the rates follow "
                f"the cosine over {now}"
            )

    def save(self, state: RunState) -> None:
        """Keep the epochs that are finished."""
        if self.folder is not None:
            self.folder.save(state.checkpoint(), state.history)

    @contextmanager
    def interruptible(self, state: RunState, *outside: type[Exception]) -> Iterator[None]:
        """Within it, an interrupt between two steps keeps the steps that are done, if that is quick.

        outside: errors that come from outside the run, such as a file that cannot be read: they keep the steps too.
        """
        try:
            yield
        except outside:
            if self.folder is not None and state.step and not state.under_way:
                self.folder.save(state.checkpoint(), state.history)
                self.say(f"{self.command}: saved after step {state.step} of epoch {state.epoch + 1}")
            raise
        except KeyboardInterrupt:
            # A step that is under way has changed a part of the state.
            if (
                self.folder is not None
                and state.step
                and not state.under_way
                and self.folder.save_if_quick(state.checkpoint(), state.history)
            ):
                self.say(f"{self.command}: saved after step {state.step} of epoch {state.epoch + 1}")
            raise

    def check(self, state: RunState, module: nn.Module, *sums: Sums, name: Callable[[NotFinite], str] = named) -> None:
        """Raise NotFiniteError for figures, weights or statistics that are not finite; of sums, in their order."""
        for some in sums:
            check_sums(some, self.command, state.epoch, self._kept(state), name)
        check_tensors(module, self.command, state.epoch, self._kept(state))

    def check_record(self, state: RunState, record: Mapping[str, Any]) -> None:
        """Raise NotFiniteError for NaN in what the history would hold."""
        check_record(record, self.command, state.epoch, self._kept(state))

    def _kept(self, state: RunState) -> str:
        if self.folder is None or not state.epoch:
            return "nothing of it is written"
        return f"{self.folder.path} holds the run as it was after epoch {state.epoch}"


def _at(config: Mapping[str, Any], path: str) -> Any:
    value: Any = config
    for key in path.split("."):
        value = value[key]
    return value
