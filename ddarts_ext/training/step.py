"""One step of a training: forward, loss, backward, update."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ddarts_ext.nn.dead import dead_parameters
from ddarts_ext.nn.joined import JoinedSGD
from ddarts_ext.runs import exchange
from ddarts_ext.runs.objective import Objective
from ddarts_ext.runs.ranks import ALONE, Ranks
from ddarts_ext.training.config import TrainConfig
from ddarts_ext.training.mixing import Mix, mixed_loss
from ddarts_ext.training.state import Run

if TYPE_CHECKING:
    from collections.abc import Iterator

Autocast = Callable[[], AbstractContextManager[object]]


def on_a_gpu(device: torch.device) -> bool:
    """Whether steps may be captured there: what changes from step to step is then in tensors, captured or not."""
    return device.type == "cuda"


class Step:
    """Makes the steps of a training of ``network``, with equal parts of every batch on all ``ranks``, which average
    gradients by torch's DistributedDataParallel, while the backward is under way.

    On a GPU the probability of drop path is a tensor, which a captured step reads. With ``compile`` the network runs
    through torch.compile. Drop path then draws from torch's global generator, as no other can be part of a compiled
    graph; it is seeded for every step and put back after it.
    """

    def __init__(
        self,
        config: TrainConfig,
        network: Any,
        autocast: Autocast,
        objective: Objective | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.ranks = ranks
        self.objective = objective or Objective()
        self.config, self.network, self.autocast = config, network, autocast
        self.both = getattr(network, "auxiliary", None) is not None
        self.forward: Any = network.forward_auxiliary if self.both else network
        self.drop: Tensor | None = None
        device = next(network.parameters()).device
        if config.compile:
            # Static shapes: the last batch of an epoch has a graph of its own.
            self.forward = torch.compile(self.forward, dynamic=False)
        if (config.compile or on_a_gpu(device)) and config.drop_path and hasattr(network, "drop_path"):
            self.drop = network.drop_path = torch.zeros((), device=device)
        self.parallel = self._parallel() if ranks.several else None
        if self.parallel is not None:
            self.forward = self.parallel

    def drop_path(self, probability: float) -> None:
        """Set the probability of drop path for the steps to come."""
        if self.drop is not None:
            self.drop.fill_(probability)
        elif hasattr(self.network, "drop_path"):
            self.network.drop_path = probability

    def __call__(self, run: Run, inputs: Tensor, labels: Tensor) -> None:
        """Add its figures to ``run.sums``. inputs: augmented; labels: int64 [N] or float32 [N, K]."""
        config, count = self.config, len(labels)
        mix = Mix.drawn(
            config.mixup, config.cutmix, (inputs.shape[2], inputs.shape[3]), config.seed, run.epoch, run.step
        )
        others: Tensor | None = None
        if mix is not None:
            inputs, others = mix.images(inputs), labels.roll(1)
        # A part of one image has no variance that a norm could divide by.
        parts = min(config.accumulate, max(1, count // 2))
        optimizer = run.optimizer
        together = parts == 1 and not self.ranks.several and isinstance(optimizer, JoinedSGD) and optimizer.joins()
        optimizer.zero_grad(set_to_none=True)
        gradients: tuple[Tensor | None, ...] = ()
        found: list[tuple[Tensor, Tensor]] = []
        with self._drawing(run), exchange.answered() if self.ranks.several else nullcontext():
            for images, own, mixed in zip(
                inputs.tensor_split(parts),
                labels.tensor_split(parts),
                [None] * parts if others is None else others.tensor_split(parts),
                strict=True,
            ):
                with self._averaging(len(found) + 1 == parts):
                    logits, loss = self._loss(images, own, mixed, 1.0 if mix is None else mix.kept)
                    loss = loss if parts == 1 else loss * (len(own) / count)
                    if together:
                        of = optimizer.param_groups[0]["params"]
                        gradients = torch.autograd.grad(loss, of, allow_unused=True)
                    else:
                        torch.autograd.backward(loss)
                found.append((logits.detach(), loss.detach()))
        norm = self._moved(optimizer, gradients)
        outputs, losses = zip(*found, strict=True)
        loss = sum(losses[1:], losses[0])
        self.objective.judge(run.sums, "train", torch.cat(outputs), labels, loss, self.ranks)
        if norm is not None:
            run.sums.add("gradient", norm)

    def _moved(self, optimizer: torch.optim.Optimizer, gradients: Sequence[Tensor | None]) -> Tensor | None:
        """Move the weights along ``gradients``, or along those that a backward pass has left; their norm, if it is
        clipped."""
        clip = self.config.clip
        if gradients and isinstance(optimizer, JoinedSGD):
            return optimizer.descend(gradients, clip)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), clip) if clip else None
        optimizer.step()
        return norm

    def _loss(self, images: Tensor, labels: Tensor, others: Tensor | None, kept: float) -> tuple[Tensor, Tensor]:
        smoothing, how = self.config.label_smoothing, self.objective
        with self.autocast(), _compiling(self.config.compile):
            out = self.forward(images)
            if not self.both:
                return out, mixed_loss(out, labels, others, kept, smoothing, how)
            logits, extra = out
            loss = mixed_loss(logits, labels, others, kept, smoothing, how)
            more = mixed_loss(extra, labels, others, kept, smoothing, how)
            return logits, loss + self.config.auxiliary_weight * more

    def _parallel(self) -> Any:
        from torch.nn.parallel import DistributedDataParallel

        # Statistics are averaged at the end of an epoch, or the same everywhere. From torch 2.13 on the argument has
        # another name.
        known = inspect.signature(DistributedDataParallel.__init__).parameters
        buffers: dict[str, Any] = {
            "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers": False
        }
        unused = bool(dead_parameters(self.network))
        # Gradients of 1x1 convolutions come in either layout, and are copied into the buckets.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        with exchange.answered():
            return DistributedDataParallel(
                _Module(self.network, self.forward), find_unused_parameters=unused, **buffers
            )

    def _averaging(self, last: bool) -> AbstractContextManager[object]:
        """Gradients are averaged once, with the last part of a batch."""
        return nullcontext() if last or self.parallel is None else self.parallel.no_sync()

    @contextmanager
    def _drawing(self, run: Run) -> Iterator[None]:
        if not self.config.compile:
            yield
            return
        device = run.random.device
        with torch.random.fork_rng([device] if device.type == "cuda" else [], device_type="cuda"):
            own = [self.ranks.rank] if self.ranks.several else []
            seeds = np.random.SeedSequence([self.config.seed, run.epoch, run.step, *own])
            torch.manual_seed(int(seeds.generate_state(1)[0]))
            yield


class _Module(nn.Module):
    """A network and that of its functions which a training calls, as DistributedDataParallel needs them."""

    def __init__(self, network: nn.Module, function: Callable[..., Any]) -> None:
        super().__init__()
        self.network, self.function = network, function

    def forward(self, images: Tensor) -> Any:
        return self.function(images)


@contextmanager
def _compiling(compiled: bool) -> Iterator[None]:
    """Within it, a network that cannot be compiled here is one ValueError."""
    if not compiled:
        yield
        return
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as error:
        cause = getattr(error, "inner_exception", error)
        reason = next(iter(str(cause).strip().splitlines()), type(cause).__name__)
        raise ValueError(f"train: compile must be off here, as torch.compile fails: {reason}") from error
