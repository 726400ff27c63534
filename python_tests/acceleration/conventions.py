"""The ways in which DARTS code bases hold and mix their ops, each in a small reproduction."""

# ruff: noqa: B905  (user code, in the style of its time)

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor, nn

C = 4
STEPS = 2
EDGES = 5  # of a cell with two inputs and STEPS nodes


class SepConv(nn.Module):
    def __init__(self, c: int, k: int, stride: int, affine: bool = False) -> None:
        super().__init__()
        self.op = nn.Sequential(
            nn.ReLU(inplace=False),
            nn.Conv2d(c, c, k, stride, k // 2, groups=c, bias=False),
            nn.Conv2d(c, c, 1, bias=False),
            nn.BatchNorm2d(c, affine=affine),
            nn.ReLU(inplace=False),
            nn.Conv2d(c, c, k, 1, k // 2, groups=c, bias=False),
            nn.Conv2d(c, c, 1, bias=False),
            nn.BatchNorm2d(c, affine=affine),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class DilConv(nn.Module):
    def __init__(self, c: int, k: int, stride: int, affine: bool = False) -> None:
        super().__init__()
        self.op = nn.Sequential(
            nn.ReLU(inplace=False),
            nn.Conv2d(c, c, k, stride, k - 1, 2, groups=c, bias=False),
            nn.Conv2d(c, c, 1, bias=False),
            nn.BatchNorm2d(c, affine=affine),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class Zero(nn.Module):
    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return x.mul(0.0) if self.stride == 1 else x[:, :, :: self.stride, :: self.stride].mul(0.0)


class Skip(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class Reduce(nn.Module):
    """FactorizedReduce."""

    def __init__(self, c_in: int, c: int, affine: bool = False) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=False)
        self.conv_1 = nn.Conv2d(c_in, c // 2, 1, stride=2, bias=False)
        self.conv_2 = nn.Conv2d(c_in, c // 2, 1, stride=2, bias=False)
        self.bn = nn.BatchNorm2d(c, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(x)
        return self.bn(torch.cat([self.conv_1(x), self.conv_2(x[:, :, 1:, 1:])], dim=1))


class ReLUConvBN(nn.Module):
    def __init__(self, c_in: int, c: int, k: int = 1, affine: bool = False, track: bool = True) -> None:
        super().__init__()
        norm = nn.BatchNorm2d(c, affine=affine, track_running_stats=track)
        self.op = nn.Sequential(nn.ReLU(inplace=False), nn.Conv2d(c_in, c, k, 1, k // 2, bias=not affine), norm)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class Scaled(nn.Module):
    """An op that nobody knows."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(c, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x * self.scale)


def ops(c: int, stride: int, affine: bool = False) -> list[nn.Module]:
    def pooled(pool: nn.Module) -> nn.Module:
        return nn.Sequential(pool, nn.BatchNorm2d(c, affine=affine))

    return [
        Zero(stride),
        pooled(nn.MaxPool2d(3, stride=stride, padding=1)),
        pooled(nn.AvgPool2d(3, stride=stride, padding=1, count_include_pad=False)),
        Skip() if stride == 1 else Reduce(c, c, affine),
        SepConv(c, 3, stride, affine),
        DilConv(c, 5, stride, affine),
    ]


class MixedOp(nn.Module):
    """DARTS, P-DARTS, FairDARTS."""

    def __init__(self, c: int = C, stride: int = 1, affine: bool = False, extra: Sequence[nn.Module] = ()) -> None:
        super().__init__()
        self._ops = nn.ModuleList([*ops(c, stride, affine), *extra])

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        return sum(w * op(x) for w, op in zip(weights, self._ops))


class SwitchedMixedOp(nn.Module):
    """D-DARTS: a cell that is not active gets random weights."""

    def __init__(self, c: int = C, stride: int = 1) -> None:
        super().__init__()
        self._ops = nn.ModuleList(ops(c, stride))

    def forward(self, x: Tensor, weights: Tensor, cell_active: bool) -> Tensor:
        if not cell_active:
            weights = torch.rand_like(weights)
        return sum(w * op(x) for w, op in zip(weights, self._ops))


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    n, c, height, width = x.size()
    x = x.view(n, groups, c // groups, height, width)
    return torch.transpose(x, 1, 2).contiguous().view(n, -1, height, width)


class PartialMixedOp(nn.Module):
    """PC-DARTS."""

    def __init__(self, c: int = 4 * C, stride: int = 1) -> None:
        super().__init__()
        self._ops = nn.ModuleList(ops(c // 4, stride))
        self.mp = nn.MaxPool2d(2, 2)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        c = x.shape[1]
        part, rest = x[:, : c // 4, :, :], x[:, c // 4 :, :, :]
        mixed = sum(w * op(part) for w, op in zip(weights, self._ops))
        rest = rest if mixed.shape[2] == x.shape[2] else self.mp(rest)
        return channel_shuffle(torch.cat([mixed, rest], dim=1), 4)


class Cell(nn.Module):
    """DARTS; with ``mixed=SwitchedMixedOp`` that of D-DARTS."""

    def __init__(self, reduction: bool = False, previous: bool = False, mixed: type[nn.Module] = MixedOp) -> None:
        super().__init__()
        self.preprocess0 = Reduce(2 * C, C) if previous else ReLUConvBN(2 * C, C)
        self.preprocess1 = ReLUConvBN(3 * C, C)
        self._ops = nn.ModuleList(mixed(C, 2 if reduction and j < 2 else 1) for i in range(STEPS) for j in range(2 + i))

    def forward(self, s0: Tensor, s1: Tensor, weights: Tensor) -> Tensor:
        states = [self.preprocess0(s0), self.preprocess1(s1)]
        offset = 0
        for _ in range(STEPS):
            s = sum(self._ops[offset + j](h, weights[offset + j]) for j, h in enumerate(states))
            offset += len(states)
            states.append(s)
        return torch.cat(states[-STEPS:], dim=1)


class SwitchedCell(Cell):
    def __init__(self, reduction: bool = False, previous: bool = False) -> None:
        super().__init__(reduction, previous, SwitchedMixedOp)

    def forward(self, s0: Tensor, s1: Tensor, weights: Tensor, cell_active: bool = True) -> Tensor:
        states = [self.preprocess0(s0), self.preprocess1(s1)]
        offset = 0
        for _ in range(STEPS):
            s = sum(self._ops[offset + j](h, weights[offset + j], cell_active) for j, h in enumerate(states))
            offset += len(states)
            states.append(s)
        return torch.cat(states[-STEPS:], dim=1)


class PartialCell(nn.Module):
    """PC-DARTS: edge weights beside op weights."""

    def __init__(self, reduction: bool = False) -> None:
        super().__init__()
        self.preprocess0, self.preprocess1 = ReLUConvBN(8, 4 * C), ReLUConvBN(12, 4 * C)
        strides = [2 if reduction and j < 2 else 1 for i in range(STEPS) for j in range(2 + i)]
        self._ops = nn.ModuleList(PartialMixedOp(4 * C, stride) for stride in strides)

    def forward(self, s0: Tensor, s1: Tensor, weights: Tensor, weights2: Tensor) -> Tensor:
        states = [self.preprocess0(s0), self.preprocess1(s1)]
        offset = 0
        for _ in range(STEPS):
            s = sum(weights2[offset + j] * self._ops[offset + j](h, weights[offset + j]) for j, h in enumerate(states))
            offset += len(states)
            states.append(s)
        return torch.cat(states[-STEPS:], dim=1)


class TableCell(nn.Module):
    """NAS-Bench-201: edges by name, and several forwards."""

    def __init__(self, nodes: int = 4) -> None:
        super().__init__()
        self.nodes = nodes
        self.edges = nn.ModuleDict()
        for i in range(1, nodes):
            for j in range(i):
                self.edges[f"{i}<-{j}"] = nn.ModuleList(
                    [Zero(1), Skip(), ReLUConvBN(C, C, 1, track=False), ReLUConvBN(C, C, 3, track=False),
                     nn.AvgPool2d(3, 1, 1, count_include_pad=False)]
                )  # fmt: skip
        self.edge2index = {key: i for i, key in enumerate(sorted(self.edges.keys()))}

    def forward(self, inputs: Tensor, weights: Tensor) -> Tensor:
        nodes = [inputs]
        for i in range(1, self.nodes):
            found = []
            for j in range(i):
                key = f"{i}<-{j}"
                row = weights[self.edge2index[key]]
                found.append(sum(layer(nodes[j]) * w for layer, w in zip(self.edges[key], row)))
            nodes.append(sum(found))
        return nodes[-1]

    def forward_masked(self, inputs: Tensor, weights: Tensor, mask: Sequence[int]) -> Tensor:
        """One op an edge is kept, the rest multiplied away."""
        nodes = [inputs]
        for i in range(1, self.nodes):
            found = []
            for j in range(i):
                key = f"{i}<-{j}"
                e = self.edge2index[key]
                pairs = enumerate(zip(self.edges[key], weights[e]))
                found.append(sum(float(k != mask[e]) * w * layer(nodes[j]) for k, (layer, w) in pairs))
            nodes.append(sum(found))
        return nodes[-1]

    def forward_gdas(self, inputs: Tensor, hardwts: Tensor, index: Sequence[int]) -> Tensor:
        nodes = [inputs]
        for i in range(1, self.nodes):
            found = []
            for j in range(i):
                key = f"{i}<-{j}"
                weights, kept = hardwts[self.edge2index[key]], index[self.edge2index[key]]
                found.append(
                    sum(weights[k] * op(nodes[j]) if k == kept else weights[k] for k, op in enumerate(self.edges[key]))
                )
            nodes.append(sum(found))
        return nodes[-1]

    def forward_urs(self, inputs: Tensor) -> Tensor:
        nodes = [inputs]
        for i in range(1, self.nodes):
            chosen = [random.choice(list(self.edges[f"{i}<-{j}"]))(nodes[j]) for j in range(i)]
            nodes.append(sum(chosen))
        return nodes[-1]


class ListMixture(nn.Module):
    """NASLib: primitives in a plain list, registered by name, called with the data of their edge."""

    def __init__(self) -> None:
        super().__init__()
        self.primitives = [WithData(op) for op in ops(C, 1)]
        for i, primitive in enumerate(self.primitives):
            self.add_module(f"primitive-{i}", primitive)

    def forward(self, x: Tensor, edge_data: dict[str, Tensor]) -> Tensor:
        return sum(w * op(x, None) for w, op in zip(edge_data["alpha"].softmax(0), self.primitives))


class WithData(nn.Module):
    def __init__(self, op: nn.Module) -> None:
        super().__init__()
        self.op = op

    def forward(self, x: Tensor, edge_data: object = None) -> Tensor:
        return self.op(x)


class ChoiceBlock(nn.Module):
    """ConfOpt: a weighted forward, or one sampled op."""

    def __init__(self) -> None:
        super().__init__()
        self.ops = nn.ModuleList(ops(C, 1))
        self.sampled = False

    def forward(self, x: Tensor, alphas: Tensor) -> Tensor:
        if self.sampled:
            return self.ops[int(torch.multinomial(alphas, 1))](x)
        return sum(op(x) * alpha for op, alpha in zip(self.ops, alphas))


class Lookalike(nn.Module):
    """Holds ops like a mixed op, and takes their largest."""

    def __init__(self) -> None:
        super().__init__()
        self._ops = nn.ModuleList(ops(C, 1))

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        return torch.stack([w * op(x) for w, op in zip(weights, self._ops)]).amax(0)


class Louder(SepConv):
    """Has the layers of a separable convolution, and does something else with them."""

    def forward(self, x: Tensor) -> Tensor:
        return 1.5 * self.op(x)


class Network(nn.Module):
    """Stem, three cells (the second a reduction), head; alphas of its own."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 2 * C, 3, padding=1, bias=False), nn.BatchNorm2d(2 * C))
        self.wide = nn.Conv2d(2 * C, 3 * C, 1)
        self.cells = nn.ModuleList([Cell(), Widened(reduction=True), Widened(previous=True)])
        self.global_pooling = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(STEPS * C, classes)
        self.alphas = nn.Parameter(1e-1 * torch.randn(EDGES, 6))

    def forward(self, x: Tensor) -> Tensor:
        s0 = self.stem(x)
        s1 = self.wide(s0)
        weights = self.alphas.softmax(-1)
        for cell in self.cells:
            s0, s1 = s1, cell(s0, s1, weights)
        out = self.global_pooling(s1)
        return self.classifier(out.view(out.size(0), -1))


class Widened(Cell):
    """A cell behind others of this network."""

    def __init__(self, reduction: bool = False, previous: bool = False) -> None:
        super().__init__(reduction, previous)
        if previous:
            self.preprocess0 = Reduce(STEPS * C, C)
            self.preprocess1 = ReLUConvBN(STEPS * C, C)
        else:
            self.preprocess0, self.preprocess1 = ReLUConvBN(3 * C, C), ReLUConvBN(STEPS * C, C)
