"""The rates and strengths of an epoch, by the schedules of a method."""

from __future__ import annotations

from collections.abc import Mapping

from ddarts_ext.runs.optimizers import scale_rates, set_rate
from ddarts_ext.runs.schedule import cosine
from ddarts_ext.search.methods import Method
from ddarts_ext.search.settings import SearchSettings
from ddarts_ext.search.state import Optimizers, SearchState


def set_rates(state: SearchState, config: SearchSettings, own: Optimizers) -> Mapping[str, float]:
    """Set what is scheduled to what it is in the epoch that begins. Returns it, as the history has it.

    own: optimisers of the caller, whose rates fall as those of the method do, from what they were made with.
    """
    method, architect, weights = config.method, config.method.architect, config.method.weights
    stage, epoch, epochs = method.stages.place(state.epoch, method.epochs)
    weight_lr = cosine(weights.weight_lr, weights.weight_lr_min, epoch, epochs)
    tuned = state.epoch - method.epochs
    if tuned >= 0:
        tuning = config.epochs - method.epochs
        weight_lr = cosine(method.selection.selection_lr, weights.weight_lr_min, tuned, tuning)
        # What follows a schedule stays as it was at its end.
        epoch = epochs - 1
    rates = {"weight_lr": weight_lr, **_alpha_rates(method, epoch, epochs)}
    if own.weights is None:
        set_rate(state.weight_optimizer, weight_lr)
    else:
        rates["weight_lr"] = scale_rates(state.weight_optimizer, _part(weight_lr, weights.weight_lr))
    moving = [rates[name] for name in ("alpha_lr", "edge_lr") if name in rates]
    if own.alphas is None:
        set_rate(state.alpha_optimizer, *moving)
    else:
        parts = [_part(rate, architect.alpha_lr) for rate in moving]
        rates["alpha_lr"] = scale_rates(state.alpha_optimizer, *parts)
    strengths = method.objectives.strengths(epoch + 1, epochs, architect.alpha_start)
    scheduled = method.mixing.scheduled(epoch + 1, epochs)
    if any(method.stages.skip_dropout):
        scheduled["skip_dropout"] = method.stages.dropout(stage, epoch, epochs, architect.alpha_start)
    for name, value in (strengths | scheduled).items():
        state.strengths[name].fill_(value)
    return rates | {f"{name}_strength": value for name, value in strengths.items()} | scheduled


def _alpha_rates(method: Method, epoch: int, epochs: int) -> dict[str, float]:
    architect = method.architect
    rate = architect.alpha_lr
    if architect.alpha_lr_min is not None:
        # The alphas' cosine begins with their first step, the weights' with the pre-training.
        first = architect.alpha_start
        rate = cosine(rate, architect.alpha_lr_min, max(0, epoch - first), epochs - first)
    if method.edges_by is None:
        return {"alpha_lr": rate}
    resting = method.edges_move_first and epoch < architect.alpha_start
    return {"alpha_lr": 0.0 if resting else rate, "edge_lr": rate}


def _part(rate: float, start: float) -> float:
    """What part of its start a rate is."""
    return rate / start if start else 1.0
