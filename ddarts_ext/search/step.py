"""One step of a search: first the alphas on a validation batch, then the weights on a training batch.

Nothing in here waits for the device: sums are kept there and read once per epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ddarts_ext.nn.forward_pass import Pass, SkipDropout
from ddarts_ext.nn.joined import JoinedSGD
from ddarts_ext.runs.objective import Objective
from ddarts_ext.runs.ranks import ALONE, Ranks
from ddarts_ext.runs.sums import Sums
from ddarts_ext.search.architect import unrolled_gradient
from ddarts_ext.search.contributions.budget import Budget
from ddarts_ext.search.contributions.marginal import contributions, frozen
from ddarts_ext.search.contributions.objectives import ablation, zero_one
from ddarts_ext.search.methods import Method
from ddarts_ext.search.perturbation import perturbed_against, perturbed_at_random
from ddarts_ext.search.state import SearchState
from ddarts_ext.search.terms import terms

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Stepper:
    """The two halves of a step. autocast: makes the context in which networks run. budget: of contributions. objective:
    what both minimise; "cross-entropy" stands for its loss below. ranks: have equal parts of every batch. chosen_alone:
    where weights need no gradient, ops that weigh 0 are not computed; which, is read on the host, so only where that
    does not wait and nothing is captured.
    """

    state: SearchState
    method: Method
    autocast: Callable[[], AbstractContextManager[object]]
    budget: Budget = field(default_factory=Budget)
    objective: Objective = field(default_factory=Objective)
    ranks: Ranks = ALONE
    chosen_alone: bool = False

    def architecture(self, step: int, train: Batch, valid: Batch, sums: Sums, *, decides: bool = True) -> None:
        """Move every row of the table by the gradient of its own loss. ``step`` counts from the start of the search;
        decides: whether the zero-one loss has joined in by now."""
        state, objectives = self.state, self.method.objectives
        ablating = objectives.ablation_weight > 0
        gradient = self._ablated(valid, sums) if self.computes(step) else None
        if self.method.architect.reference_accumulate:
            gradient = self._accumulated(valid, sums, counts=gradient is None)
        elif self.method.architect.order == 2:
            gradient = self._unrolled(train, valid, sums, counts=gradient is None)
        elif gradient is None:
            gradient = self._plain(valid, sums)
        if ablating:
            sums.add("ablation", state.held["value"])
            sums.add("contributions", state.held["contributions"])
            if "gradient" in state.held:
                gradient = gradient + objectives.ablation_weight * state.held["gradient"]
        if objectives.zero_one_weight and decides:
            gradient = gradient + objectives.zero_one_weight * self._zero_one(sums)
        added = self._terms(sums)
        if added is not None:
            gradient = gradient + added
        sums.add("alpha_gradient", gradient)
        state.architecture.take_gradient(gradient)
        state.alpha_optimizer.step()
        state.architecture.take_gradient(None)

    def training_pass(self) -> Pass:
        """How the network runs on the batch of a step."""
        state = self.state
        if not any(self.method.stages.skip_dropout):
            return Pass()
        return Pass(skip_dropout=SkipDropout(state.strengths["skip_dropout"], state.augmentation))

    def _of_chosen(self, p: Pass, weights: Tensor) -> Pass:
        """The pass, of the ops alone that have a weight."""
        if not self.chosen_alone:
            return p
        return replace(p, only=weights.detach().ne(0).tolist())

    def computes(self, step: int) -> bool:
        """Whether an architecture step computes contributions, or uses those that are held, if any."""
        objectives = self.method.objectives
        due = step % objectives.ablation_every == 0 or "value" not in self.state.held
        return objectives.ablation_weight > 0 and due

    def weights(self, batch: Batch, sums: Sums) -> None:
        """Move the weights of the supernet on a training batch; the alphas are constants here."""
        state = self.state
        images, labels = batch
        accumulates = self.method.architect.reference_accumulate
        leaf = state.architecture.leaf(accumulates)
        weights = self._weights_trained_with(leaf, batch)
        with self.autocast():
            logits = state.net(images, weights, self._of_chosen(self.training_pass(), weights))
            loss = self.objective.loss(logits, labels)
        norm = self._moved_accumulating(loss, leaf) if accumulates else self._moved(loss)
        self.objective.judge(sums, "train", logits.detach(), labels, loss, self.ranks)
        if norm is not None:
            sums.add("gradient", norm)

    def _moved(self, loss: Tensor) -> Tensor | None:
        """Move the weights along the gradient of ``loss``; its norm, where it is clipped."""
        optimizer, clip, stops = self.state.weight_optimizer, self.method.weights.clip, self.state.op_stop
        if stops is None and not self.ranks.several and isinstance(optimizer, JoinedSGD) and optimizer.joins():
            parameters = optimizer.param_groups[0]["params"]
            return optimizer.descend(torch.autograd.grad(loss, parameters, allow_unused=True), clip)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self._rest_of_gradients()
        self.ranks.average_gradients(self.state.net.parameters())
        before = None
        if stops is not None:
            stops.training()
            before = stops.before()
        norm = nn.utils.clip_grad_norm_(self.state.net.parameters(), clip) if clip else None
        optimizer.step()
        if stops is not None and before is not None:
            stops.put_back(before)
        return norm

    def _moved_accumulating(self, loss: Tensor, leaf: Tensor) -> Tensor | None:
        """The same with what the alphas' step has left in the gradients, and with what is left to the alphas."""
        state, clip = self.state, self.method.weights.clip
        torch.autograd.backward(loss)
        self._rest_of_gradients()
        self.ranks.average_gradients(state.net.parameters())
        if leaf.grad is not None:
            held, (left,) = state.held.get("left"), self.ranks.average([leaf.grad])
            state.held["left"] = left if held is None else held + left
        norm = nn.utils.clip_grad_norm_(state.net.parameters(), clip) if clip else None
        state.weight_optimizer.step()
        state.weight_optimizer.zero_grad(set_to_none=True)
        return norm

    def _rest_of_gradients(self) -> None:
        """Of ops that were not computed: as where all are, decay and momentum move them all the same."""
        if self.chosen_alone:
            for parameter in self.state.net.parameters():
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)

    def judge(self, batch: Batch, weights: Tensor, p: Pass, sums: Sums) -> None:
        """Add loss and metric of a batch of normalised images, with op weights [cells, E, O], as ``valid``."""
        images, labels = batch
        with torch.no_grad(), self.autocast():
            logits = self.state.net(images, weights, self._of_chosen(p, weights))
            loss = self.objective.loss(logits, labels)
        self.objective.judge(sums, "valid", logits, labels, loss)

    def _ablated(self, valid: Batch, sums: Sums) -> Tensor:
        """Contributions of all cells: holds the ablation loss and its gradient, returns that of the cross-entropy."""
        state, objectives = self.state, self.method.objectives
        with self.autocast():
            found = contributions(
                state.net,
                state.architecture.leaf(),
                state.architecture.to_weights,
                *valid,
                owner=state.architecture.owner,
                inactive=objectives.ablation_inactive,  # type: ignore[arg-type]
                gradient=objectives.ablation_gradient,  # type: ignore[arg-type]
                removal=objectives.ablation_removal,  # type: ignore[arg-type]
                memory=self.budget.memory,
                keep=self.budget.keep,
                generator=state.augmentation,
                objective=self.objective,
            )
        gradients = [found.full_gradient, found.ablated_gradient, found.own_gradient]
        given = [tensor for tensor in (found.loss, found.without, *gradients) if tensor is not None]
        means = iter(self.ranks.average(given))
        loss, without = next(means), next(means)
        full, ablated, own = (None if gradient is None else next(means) for gradient in gradients)
        assert full is not None
        result = ablation(
            loss,
            without,
            full,
            ablated,
            own,
            sign=objectives.ablation_sign,
            delta=objectives.ablation_delta,
            gradient=objectives.ablation_gradient,
        )
        state.hold("value", result.value)
        state.hold("contributions", result.contributions)
        if result.gradient is not None:
            state.hold("gradient", result.gradient)
            # How much of a step is the ablation loss's: a loss without bound holds Adam's second moment up for long.
            share = objectives.ablation_weight * result.gradient.norm() / full.norm().clamp_min(1e-30)
            sums.largest("ablation_ratio", share)
        self.objective.judge(sums, "architecture", found.logits, valid[1], found.loss, self.ranks)
        return full

    def _plain(self, valid: Batch, sums: Sums) -> Tensor:
        """Gradient of the cross-entropy with respect to the table, for all rows from one backward."""
        state = self.state
        images, labels = valid
        leaf = state.architecture.leaf()
        compared = [] if state.op_stop is None else state.op_stop.parameters
        with frozen(state.net, but=compared), self.autocast():
            weights = state.architecture.drawn(leaf, state.augmentation)
            logits = state.net(images, weights, self.training_pass())
            loss = self.objective.loss(logits, labels)
            gradient, *others = self.ranks.average(torch.autograd.grad(loss, [leaf, *compared]))
        if state.op_stop is not None:
            state.op_stop.validation(others)
        self.objective.judge(sums, "architecture", logits.detach(), labels, loss, self.ranks)
        return gradient

    def _accumulated(self, valid: Batch, sums: Sums, *, counts: bool) -> Tensor:
        """The gradient of every row as the published code leaves it, with that of the weights in their ``grad``."""
        state = self.state
        images, labels = valid
        rows = len(state.architecture.table)
        leaf = state.architecture.leaf()
        with self.autocast():
            logits = state.net(
                images, state.architecture.to_weights(leaf), Pass(statistics="update" if counts else "batch")
            )
            loss = self.objective.loss(logits, labels)
        # The loss of every cell goes back through the same network: N equal gradients of the weights.
        torch.autograd.backward(loss * rows)
        (gradient,) = self.ranks.average([cast(Tensor, leaf.grad) / rows])
        number = torch.arange(1, rows + 1, device=leaf.device, dtype=leaf.dtype).view(-1, 1, 1)
        total, left = number * gradient, state.held.get("left")
        state.held["left"] = (rows - number) * gradient
        if counts:
            self.objective.judge(sums, "architecture", logits.detach(), labels, loss, self.ranks)
        return total if left is None else total + left

    def _unrolled(self, train: Batch, valid: Batch, sums: Sums, *, counts: bool) -> Tensor:
        """Gradient at weights unrolled by one step on the training batch. It updates no running statistics."""
        state, settings = self.state, self.method
        names = [name for name, _ in state.net.named_parameters()]
        parameters = [parameter for _, parameter in state.net.named_parameters()]

        def loss_on(batch: Batch) -> Callable[[Sequence[Tensor], Tensor], Tensor]:
            def loss(weights: Sequence[Tensor], table: Tensor) -> Tensor:
                # The loss of all ranks' images, so that what is unrolled is what they all do.
                table, *weights = self.ranks.copied(table, *weights)
                arguments = (batch[0], state.architecture.to_weights(table), Pass(statistics="batch"))
                with self.autocast():
                    logits = functional_call(state.net, dict(zip(names, weights, strict=True)), arguments)
                    return self.ranks.mean(self.objective.loss(logits, batch[1]))

            return loss

        gradient, loss = unrolled_gradient(
            loss_on(train),
            loss_on(valid),
            parameters,
            state.architecture.leaf(),
            learning_rate=state.weight_optimizer.param_groups[0]["lr"],
            momentum=settings.weights.momentum,
            weight_decay=settings.weights.weight_decay,
            buffers=[state.weight_optimizer.state[p].get("momentum_buffer") for p in parameters],
            hessian=settings.architect.hessian,
        )
        if counts:
            count = len(valid[1]) * self.ranks.world
            sums.add("architecture_loss", loss * count, count)
        return gradient

    def _zero_one(self, sums: Sums) -> Tensor:
        """Gradient of the zero-one loss of every row with respect to that row."""
        architecture, objectives = self.state.architecture, self.method.objectives
        leaf = architecture.leaf()
        values = zero_one(architecture.relax(architecture.alphas(leaf)), objectives.zero_one_form)
        if objectives.zero_one_over == "table":
            values = values / len(values)
        sums.add("zero_one", values)
        return torch.autograd.grad(values.sum(), leaf)[0]

    def _terms(self, sums: Sums) -> Tensor | None:
        """Gradient of the terms that follow from the alphas alone, each at its strength of this epoch."""
        architecture = self.state.architecture
        leaf = architecture.leaf()
        found = terms(architecture, leaf, self.method.objectives, self.state.cost)
        if not found:
            return None
        for name, values in found.items():
            sums.add(name, values)
        total = torch.stack([self.state.strengths[name] * values.sum() for name, values in found.items()]).sum()
        return torch.autograd.grad(total, leaf)[0]

    def _weights_trained_with(self, leaf: Tensor, batch: Batch) -> Tensor:
        """What ops are mixed by in the step of the weights, [cells, E, O]: drawn or perturbed, where they are so."""
        state, how = self.state, self.method.mixing
        architecture = state.architecture
        if how.perturbation == "none":
            return architecture.drawn(leaf, state.augmentation)
        relaxed, radius = architecture.relax(architecture.alphas(leaf)), state.strengths["radius"]
        if how.perturbation == "random":
            return architecture.mixing(perturbed_at_random(relaxed, radius, state.augmentation), leaf)

        def loss(moved: Tensor) -> Tensor:
            with self.autocast():
                (moved,) = self.ranks.copied(moved)
                logits = state.net(batch[0], architecture.mixing(moved, leaf), Pass(statistics="batch"))
                return self.ranks.mean(self.objective.loss(logits, batch[1]))

        with frozen(state.net):
            worst = perturbed_against(relaxed, radius, loss, how.perturbation_steps, state.augmentation)
        return architecture.mixing(worst, leaf)
