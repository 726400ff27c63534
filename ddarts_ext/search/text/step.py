"""One step of a search on text: alphas on a segment of the validation text, weights on one of the training text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ddarts_ext.nn.forward_pass import Pass
from ddarts_ext.nn.recurrent import LanguageModel, Masks
from ddarts_ext.runs.optimizers import set_rate
from ddarts_ext.runs.schedule import cosine
from ddarts_ext.runs.sums import Sums
from ddarts_ext.search.architect import unrolled_gradient
from ddarts_ext.search.contributions.marginal import frozen
from ddarts_ext.search.step import Batch, Stepper

TRAINED, MOVED = "hidden_weights", "hidden_alphas"
"""The hidden states that segments go on from, in the state's ``held``: of the training and of the validation text."""


@dataclass(frozen=True)
class TextStepper(Stepper):
    """The two halves of a step on segments (words, targets), both [T,B]. Hidden states stay on the device."""

    @property
    def net(self) -> LanguageModel:
        return cast(LanguageModel, self.state.net)

    def weights(self, batch: Batch, sums: Sums) -> None:
        """Move the weights on a segment, at a rate that is in proportion to its length."""
        state, method = self.state, self.method
        text = method.text
        assert text is not None
        words, targets = batch
        mixing = state.architecture.drawn(state.architecture.leaf(requires_grad=False), state.augmentation)
        with self.autocast():
            out = self.net(words, state.held[TRAINED], mixing, Pass(), self._masks(words))
            loss, plain = out.loss(targets, text.activation_penalty, text.slowness_penalty)
        state.weight_optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        if method.weights.clip:
            sums.add("gradient", nn.utils.clip_grad_norm_(self.net.parameters(), method.weights.clip))
        rate = cosine(method.weights.weight_lr, method.weights.weight_lr_min, state.epoch, method.epochs)
        set_rate(state.weight_optimizer, rate * len(words) / text.bptt)
        state.weight_optimizer.step()
        set_rate(state.weight_optimizer, rate)
        state.hold(TRAINED, out.hidden)
        sums.add("train_loss", plain * targets.numel(), targets.numel())

    def _masks(self, words: Tensor) -> Masks:
        return self.net.masks(words.shape[1], self.state.augmentation)

    def _plain(self, valid: Batch, sums: Sums) -> Tensor:
        state = self.state
        words, targets = valid
        leaf = state.architecture.leaf()
        with frozen(state.net), self.autocast():
            mixing = state.architecture.drawn(leaf, state.augmentation)
            out = self.net(words, state.held[MOVED], mixing, Pass(), self._masks(words))
            loss, _ = out.loss(targets)
            gradient = torch.autograd.grad(loss, leaf)[0]
        state.hold(MOVED, out.hidden)
        sums.add("architecture_loss", loss * targets.numel(), targets.numel())
        return gradient

    def _unrolled(self, train: Batch, valid: Batch, sums: Sums, *, counts: bool) -> Tensor:
        """Gradient at weights unrolled by one clipped step. All passes on a segment have the same masks: the central
        difference would otherwise be of two networks."""
        state, method = self.state, self.method
        text = method.text
        assert text is not None
        names = [name for name, _ in state.net.named_parameters()]
        parameters = [parameter for _, parameter in state.net.named_parameters()]

        def loss_on(batch: Batch, held: str) -> Callable[[Sequence[Tensor], Tensor], Tensor]:
            words, targets = batch
            masks, before = self._masks(words), state.held[held].clone()

            def loss(weights: Sequence[Tensor], table: Tensor) -> Tensor:
                mixing = state.architecture.to_weights(table)
                arguments = (words, before, mixing, Pass(statistics="batch"), masks)
                with self.autocast():
                    out = functional_call(state.net, dict(zip(names, weights, strict=True)), arguments)
                    if held == MOVED:
                        state.hold(MOVED, out.hidden)
                    found: Tensor = out.loss(targets)[0]
                    return found

            return loss

        gradient, loss = unrolled_gradient(
            loss_on(train, TRAINED),
            loss_on(valid, MOVED),
            parameters,
            state.architecture.leaf(),
            learning_rate=state.weight_optimizer.param_groups[0]["lr"] * len(train[0]) / text.bptt,
            momentum=method.weights.momentum,
            weight_decay=method.weights.weight_decay,
            buffers=[state.weight_optimizer.state[p].get("momentum_buffer") for p in parameters],
            hessian=method.architect.hessian,
            clip=method.weights.clip,
            reference=text.unrolled_clip == "reference",
        )
        if counts:
            sums.add("architecture_loss", loss * valid[1].numel(), valid[1].numel())
        return gradient
