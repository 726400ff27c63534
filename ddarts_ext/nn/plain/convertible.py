"""What networks have that can be had from torch's own layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ddarts_ext.nn.plain.names import from_plain, plain_names, to_plain
from ddarts_ext.nn.plain.network import Entry, PlainNetwork, PlainStagedNetwork

if TYPE_CHECKING:
    _Base = nn.Module
else:
    _Base = object


class Convertible(_Base):
    """A network that :meth:`plain` gives from torch's own layers, with weights that go both ways."""

    def _plain_entries(self) -> Sequence[Sequence[Entry]]:
        """The entries of every cell, in the order of its ops."""
        raise NotImplementedError

    def plain_arguments(self) -> dict[str, Any]:
        """The arguments of the plain network's class, as plain data."""
        raise NotImplementedError

    def _plain_network(self) -> PlainNetwork | PlainStagedNetwork:
        """The plain network with weights of its own."""
        raise NotImplementedError

    def plain_names(self) -> dict[str, str]:
        """The name of every tensor of the state dict -> its name in the state dict of :meth:`plain`."""
        stem = getattr(self.stem, "kind", "cifar")
        return plain_names(self.state_dict(), self._plain_entries(), stem)

    def plain_state_dict(self) -> dict[str, Tensor]:
        """The weights and buffers as :meth:`plain` names them; they are the same tensors."""
        return to_plain(self.state_dict(), self.plain_names())

    def load_plain_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights and buffers of a plain network. Raises ValueError naming what is missing or not of it."""
        self.load_state_dict(from_plain(state, self.plain_names()))

    def plain(self) -> PlainNetwork | PlainStagedNetwork:
        """The same network from ``nn.Conv2d``, ``nn.BatchNorm2d`` and torch's other layers, with a copy of the weights.

        It gives the same outputs, gradients and running statistics, in training and evaluation, and has the same
        auxiliary head and drop path, whose draws come in another order; no :class:`Pass`. It is on the device, in the
        dtype and in the mode of this one. It can be traced, exported and compiled by whatever knows torch alone.
        """
        with torch.device("meta"):
            network = self._plain_network()
        copies = {name: tensor.detach().clone() for name, tensor in self.plain_state_dict().items()}
        network.load_state_dict(copies, assign=True)
        ours, names = dict(self.named_parameters()), self.plain_names()
        theirs = dict(network.named_parameters())
        for name, parameter in ours.items():
            theirs[names[name]].requires_grad_(parameter.requires_grad)
        return network.train(self.training)
