"""The network of an architecture from torch's own layers; nothing is imported but torch and its neighbour layers.py.

Cells are data: (entries, joined, reduction), entries (op, target, source) in the order of the genotype, joined the
nodes whose concatenation is the output.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddarts_ext.nn.plain.layers import FactorizedReduce, conv, make_op, named, square

Entry = tuple[str, int, int]
CellData = tuple[Sequence[Entry], Sequence[int], bool]


def edge_name(entry: Entry) -> str:
    """How the op of an entry is called among the modules of its cell."""
    op, target, source = entry
    return f"{source}_to_{target}_{op}"


class Nodes(nn.Module):
    """The nodes of a cell, each the sum of the ops that lead to it; one that none leads to is zero.

    inputs: how many nodes are given. drop: probability of drop path, which drops op outputs but those of pure skips, or
    the sums of nodes where ``drop_nodes``.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        nodes: Sequence[int],
        inputs: int,
        channels: int,
        reduction: bool,
        drop_nodes: bool,
    ) -> None:
        super().__init__()
        self.entries: list[Entry] = [(op, target, source) for op, target, source in entries]
        self.nodes = sorted(nodes)
        self.reduction, self.drop_nodes = reduction, drop_nodes
        self.ops = nn.ModuleDict(
            {
                edge_name((op, target, source)): make_op(op, channels, 2 if reduction and source < inputs else 1)
                for op, target, source in self.entries
            }
        )

    def states(self, inputs: Sequence[Tensor], drop: float) -> dict[int, Tensor]:
        """The outputs of all nodes, those of ``inputs`` included."""
        states = dict(enumerate(inputs))
        for node in self.nodes:
            found = []
            for op, target, source in self.entries:
                if target == node:
                    layer = self.ops[edge_name((op, target, source))]
                    out = layer(states[source])
                    pure = isinstance(layer, nn.Identity)
                    found.append(out if self.drop_nodes or pure else self._dropped(out, drop))
            if found:
                total = found[0]
                for out in found[1:]:
                    total = total + out
                states[node] = self._dropped(total, drop) if self.drop_nodes else total
            else:
                stride = 2 if self.reduction else 1
                states[node] = torch.zeros_like(inputs[0][:, :, ::stride, ::stride])
        return states

    def _dropped(self, x: Tensor, drop: float) -> Tensor:
        if drop == 0 or not self.training:
            return x
        mask = torch.empty(x.shape[0], 1, 1, 1, dtype=x.dtype, device=x.device).bernoulli_(1 - drop)
        return x * mask / (1 - drop)


class Cell(Nodes):
    """A cell that reads the outputs of the two cells before it."""

    def __init__(
        self,
        cell: CellData,
        channels_0: int,
        channels_1: int,
        channels: int,
        *,
        previous_reduction: bool,
        drop_nodes: bool,
    ) -> None:
        entries, joined, reduction = cell
        nodes = {target for _, target, _ in entries}
        super().__init__(entries, sorted(nodes), 2, channels, reduction, drop_nodes)
        self.preprocess0: nn.Module = (
            FactorizedReduce(channels_0, channels) if previous_reduction else square(channels_0, channels, 1, 1)
        )
        self.preprocess1 = square(channels_1, channels, 1, 1)
        self.joined, self.out_channels = list(joined), len(joined) * channels

    def forward(self, s0: Tensor, s1: Tensor, drop: float = 0.0) -> Tensor:
        states = self.states((self.preprocess0(s0), self.preprocess1(s1)), drop)
        return torch.cat([states[node] for node in self.joined], 1)


class Stem(nn.Module):
    """What comes before the first cell: full size (``cifar``), an eighth (``imagenet``) or a quarter of it."""

    def __init__(self, kind: str, in_channels: int, channels: int) -> None:
        super().__init__()
        self.kind = kind
        if kind == "cifar":
            self.conv, self.norm = conv(in_channels, channels, 3, 1, 1), nn.BatchNorm2d(channels)
            return
        second = 1 if kind == "imagenet_stride4" else 2
        self.first = named(
            conv1=conv(in_channels, channels // 2, 3, 2, 1),
            norm1=nn.BatchNorm2d(channels // 2),
            relu=nn.ReLU(),
            conv2=conv(channels // 2, channels, 3, second, 1),
            norm2=nn.BatchNorm2d(channels),
        )
        self.second = named(relu=nn.ReLU(), conv3=conv(channels, channels, 3, 2, 1), norm3=nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.kind == "cifar":
            s = self.norm(self.conv(x))
            return s, s
        s0 = self.first(x)
        return s0, self.second(s0)


class AuxiliaryHead(nn.Module):
    """The second classifier, of training alone."""

    def __init__(self, channels: int, classes: int, stride: int, second_norm: bool) -> None:
        super().__init__()
        self.stride = stride
        self.conv1, self.norm1 = conv(channels, 128), nn.BatchNorm2d(128)
        self.conv2 = conv(128, 768, 2)
        self.norm2: nn.Module = nn.BatchNorm2d(768) if second_norm else nn.Identity()
        self.classifier: nn.Module = nn.Linear(768, classes) if classes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        if all((side - 5) // self.stride == 1 and side >= 5 for side in x.shape[2:]):
            x = F.avg_pool2d(x, 5, self.stride)
        else:
            x = F.adaptive_avg_pool2d(x, 2)
        x = self.conv2(F.relu(self.norm1(self.conv1(x))))
        logits: Tensor = self.classifier(F.relu(self.norm2(x)).flatten(1))
        return logits


class PlainNetwork(nn.Module):
    """A network of cells with two inputs. Images [N, in_channels, H, W] -> logits [N, classes].

    channels: of the first cell; a reduction doubles them. auxiliary: None, or (after which cell, stride, whether its
    second norm is there). drop_path: probability, an attribute that a trainer may move.
    """

    def __init__(
        self,
        cells: Sequence[CellData],
        channels: int,
        classes: int,
        in_channels: int = 3,
        stem: str = "cifar",
        *,
        auxiliary: tuple[int, int, bool] | None = None,
        drop_path: float = 0.0,
        drop_nodes: bool = False,
    ) -> None:
        super().__init__()
        self.drop_path = drop_path
        current = 3 * channels if stem == "cifar" else channels
        self.stem = Stem(stem, in_channels, current)
        self.cells = nn.ModuleList()
        previous, halved = current, stem != "cifar"
        self.auxiliary_after = -1 if auxiliary is None else auxiliary[0]
        self.auxiliary: nn.Module | None = None
        for i, data in enumerate(cells):
            channels *= 2 if data[2] else 1
            cell = Cell(data, previous, current, channels, previous_reduction=halved, drop_nodes=drop_nodes)
            self.cells.append(cell)
            previous, current, halved = current, cell.out_channels, data[2]
            if auxiliary is not None and i == auxiliary[0]:
                self.auxiliary = AuxiliaryHead(current, classes, *auxiliary[1:])
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier: nn.Module = nn.Linear(current, classes) if classes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self._run(x, False)[0]

    def forward_auxiliary(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(logits, logits of the auxiliary head)."""
        logits, extra = self._run(x, True)
        if extra is None:
            raise ValueError("PlainNetwork: auxiliary must be given for forward_auxiliary, got None")
        return logits, extra

    def _run(self, x: Tensor, auxiliary: bool) -> tuple[Tensor, Tensor | None]:
        extra = None
        s0, s1 = self.stem(x)
        for i, cell in enumerate(self.cells):
            s0, s1 = s1, cell(s0, s1, self.drop_path)
            if auxiliary and self.auxiliary is not None and i == self.auxiliary_after:
                extra = self.auxiliary(s1)
        return self.classifier(self.pool(s1).flatten(1)), extra


class ResidualBlock(nn.Module):
    """Between two stages: half the size, other channels."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.first, self.second = square(channels_in, channels, 3, 2), square(channels, channels, 3, 1)
        self.pool = nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False)
        self.shortcut = conv(channels_in, channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.first(x)) + self.shortcut(self.pool(x))
        return out


class PlainStagedNetwork(nn.Module):
    """A network of NAS-Bench-201: the same cell, with one input, in three stages.

    entries: of the cell, (op, target, source); its nodes are 1 to ``steps``, and ``output`` is one of them.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        steps: int,
        output: int,
        channels: int,
        cells_per_stage: int,
        classes: int,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        self.output, self.cells_per_stage = output, cells_per_stage
        self.stem = Stem("cifar", in_channels, channels)
        self.blocks = nn.ModuleList([ResidualBlock(channels << i, channels << (i + 1)) for i in range(2)])
        self.cells = nn.ModuleList(
            Nodes(entries, range(1, steps + 1), 1, channels << (i // cells_per_stage), False, False)
            for i in range(3 * cells_per_stage)
        )
        self.norm = nn.BatchNorm2d(4 * channels)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier: nn.Module = nn.Linear(4 * channels, classes) if classes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        state = self.stem(x)[0]
        for i, cell in enumerate(self.cells):
            if i and i % self.cells_per_stage == 0:
                state = self.blocks[i // self.cells_per_stage - 1](state)
            if isinstance(cell, Nodes):
                state = cell.states((state,), 0.0)[self.output]
        logits: Tensor = self.classifier(self.pool(F.relu(self.norm(state))).flatten(1))
        return logits
