"""More ways in which DARTS code bases hold their ops and call them, each in a small reproduction."""

# ruff: noqa: B905  (user code, in the style of its time)

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from acceleration import conventions as user
from torch import Tensor, nn

C = user.C


def proj(c_in: int, c: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(c_in, c, 1, bias=False), nn.BatchNorm2d(c), nn.ReLU())


class MixedBlock(nn.Module):
    """NAS-Bench-1Shot1: weighs and adds its inputs, then mixes the ops on the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.mixed_op = user.MixedOp()

    def forward(self, inputs: list[Tensor], input_weights: Tensor | None, weights: Tensor) -> Tensor:
        if input_weights is not None:
            inputs = [w * t for w, t in zip(input_weights, inputs)]
        return self.mixed_op(sum(inputs), weights=weights)


class ProjectedCell(nn.Module):
    """NAS-Bench-1Shot1: a projection of the input for every block, which is no candidate of anything."""

    def __init__(self) -> None:
        super().__init__()
        self._choice_blocks = nn.ModuleList(MixedBlock() for _ in range(3))
        self._input_projections = nn.ModuleList(proj(C, C) for _ in range(4))

    def forward(self, s0: Tensor, weights: Tensor, input_weights: Tensor | None = None) -> Tensor:
        states: list[Tensor] = []
        for i, block in enumerate(self._choice_blocks):
            states.append(block([self._input_projections[i](s0), *states], input_weights, weights[i]))
        return torch.cat([*states, self._input_projections[-1](s0)], dim=1)


class ProjectedNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.ModuleList([ProjectedCell(), ProjectedCell()])
        self.squeeze = nn.Conv2d(4 * C, C, 1)
        self.alphas = nn.Parameter(torch.randn(3, 6))

    def forward(self, x: Tensor) -> Tensor:
        for cell in self.cells:
            x = self.squeeze(cell(x, self.alphas.softmax(-1), torch.ones(3)))
        return x


class PaddedReduce(nn.Module):
    """AutoDL, IS-DARTS: convolutions in a list, a padding for odd sides."""

    def __init__(self, c_in: int, c: int, affine: bool = False) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=False)
        self.convs = nn.ModuleList(nn.Conv2d(c_in, c // 2, 1, stride=2, bias=False) for _ in range(2))
        self.pad = nn.ConstantPad2d((0, 1, 0, 1), 0)
        self.bn = nn.BatchNorm2d(c, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(x)
        y = self.pad(x)
        return self.bn(torch.cat([self.convs[0](x), self.convs[1](y[:, :, 1:, 1:])], dim=1))


class PaddedCell(user.Cell):
    """Behind a reduction, with an entrance of 1x1 convolution and norm alone."""

    def __init__(self) -> None:
        super().__init__()
        self.preprocess0 = PaddedReduce(2 * C, C)
        self.preprocess1 = nn.Sequential(nn.Conv2d(3 * C, C, 1, bias=False), nn.BatchNorm2d(C))


class CountedMixedOp(nn.Module):
    """IS-DARTS: a mask, and how many ops it leaves."""

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self._ops = nn.ModuleList(user.ops(C, stride))

    def forward(self, x: Tensor, mask: Tensor, count: int) -> Tensor:
        return sum(m * op(x) / count for m, op in zip(mask, self._ops))


class NestedCell(nn.Module):
    """Mixed ops in a list for every node."""

    def __init__(self) -> None:
        super().__init__()
        self.preprocess0, self.preprocess1 = user.ReLUConvBN(2 * C, C), user.ReLUConvBN(3 * C, C)
        self.dag = nn.ModuleList(nn.ModuleList(user.MixedOp() for _ in range(2 + i)) for i in range(2))

    def forward(self, s0: Tensor, s1: Tensor, weights: Sequence[Tensor]) -> Tensor:
        states = [self.preprocess0(s0), self.preprocess1(s1)]
        for edges, rows in zip(self.dag, weights):
            states.append(sum(edge(s, w) for edge, s, w in zip(edges, states, rows)))
        return torch.cat(states[2:], dim=1)


class NamedArguments(nn.Module):
    """Called by keyword, with weights that may be missing."""

    def __init__(self) -> None:
        super().__init__()
        self.ops = nn.ModuleList(user.ops(C, 1))

    def forward(self, x: Tensor, *, weights: Tensor | None = None, mean: bool = False) -> Tensor:
        if weights is None:
            raise ValueError("weights must be given")
        out = sum(w * op(x) for w, op in zip(weights, self.ops))
        return out / len(self.ops) if mean else out


class NamedNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, C, 3, padding=1)
        self.edge = NamedArguments()
        self.alphas = nn.Parameter(torch.randn(6))

    def forward(self, images: Tensor, mean: bool = False) -> Tensor:
        return self.edge(x=self.stem(images), weights=self.alphas.softmax(0), mean=mean)


class ManyForwards(nn.Module):
    """One that sums, one that takes a single op, and one that nobody can call."""

    def __init__(self) -> None:
        super().__init__()
        self._ops = nn.ModuleList(user.ops(C, 1))

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        return sum(w * op(x) for w, op in zip(weights, self._ops))

    def forward_first(self, x: Tensor, weights: Tensor) -> Tensor:
        return self._ops[4](x) * weights[4]

    def forward_joint(self, x: Tensor, weights: Tensor) -> Tensor:
        return sum(op(x) for op in self._ops) * weights.mean()

    def forward_alien(self, x: Tensor, one: Any, two: Any) -> Tensor:
        return one.apply(self._ops[0](x), two)


class Children(nn.Module):
    """Candidates as plain children that are called by name."""

    def __init__(self) -> None:
        super().__init__()
        self.sep = user.SepConv(C, 3, 1)
        self.dil = user.DilConv(C, 5, 1)
        self.skip = user.Skip()

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        return weights[0] * self.sep(x) + weights[1] * self.dil(x) + weights[2] * self.skip(x)


class LayerChoice(nn.Module):
    """NNI: candidates as children by key; the weighted sum asks for the types of what it sums."""

    def __init__(self, extra: Sequence[nn.Module] = ()) -> None:
        super().__init__()
        self.names = []
        for i, op in enumerate([*user.ops(C, 1), *extra]):
            self.names.append(f"op{i}")
            self.add_module(f"op{i}", op)
        self._arch_alpha = nn.Parameter(torch.randn(len(self.names)))
        self._softmax = nn.Softmax(-1)

    def __getitem__(self, key: str) -> nn.Module:
        return self._modules[key]

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        outs = [self[name](*args, **kwargs) for name in self.names]
        weights = self._softmax(self._arch_alpha)
        if not isinstance(outs[0], torch.Tensor | float) or any(type(out) is not type(outs[0]) for out in outs):
            raise TypeError("can not be summed")
        total = outs[0] * weights[0]
        for out, weight in zip(outs[1:], weights[1:]):
            total = total + out * weight
        return total


class MixedOp(nn.Module):
    """NASLib: primitives in a plain list, weights from the data of an edge."""

    def __init__(self) -> None:
        super().__init__()
        self.primitives = [user.WithData(op) for op in user.ops(C, 1)]
        for i, primitive in enumerate(self.primitives):
            self.add_module(f"primitive-{i}", primitive)

    def forward(self, x: Tensor, edge_data: Any) -> Tensor:
        return sum(w * op(x, None) for w, op in zip(edge_data.alpha.softmax(0), self.primitives))


class OperationChoices(nn.Module):
    """ConfOpt: the weights as a list of numbers of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.ops = nn.ModuleList(user.ops(C, 1))

    def forward(self, x: Tensor, alphas: Sequence[Tensor]) -> Tensor:
        if len(alphas) != len(self.ops):
            raise ValueError("one weight for every op")
        return sum([op(x) * alpha for op, alpha in zip(self.ops, alphas)])


LayerChoice.__module__, MixedOp.__module__, OperationChoices.__module__ = "nni.nas", "naslib.core", "confopt.mixop"
