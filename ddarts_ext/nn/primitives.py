"""The ops of the search spaces as modules that stop short of their last norm (the layers: DARTS, appendix A.1).

Every primitive hands over its output *before* its last batch norm and says by ``normalized`` whether that norm is still
to come: in a supernet the node's sum applies it, in an evaluation network a norm module of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from ddarts_ext import ops
from ddarts_ext.nn import stacked
from ddarts_ext.nn.forward_pass import Pass
from ddarts_ext.nn.idle_bias import Biased
from ddarts_ext.nn.norm import GroupedNorm, elements_per_group, given_together, record_together
from ddarts_ext.nn.pointwise import biased, conv2d, conv_bias, conv_weight, pointwise
from ddarts_ext.nn.readers import readers, readers_and_pools


@dataclass(frozen=True)
class Style:
    """How the layers of one network differ from another's.

    affine: norms inside an op have weight and bias (evaluation networks). pool_norm: pools await a norm (DARTS
    supernets). conv_bias: convolutions have a bias (AutoDL, whose norms are then not affine). track: norms keep
    running statistics; without them they always use those of the batch. drop_skips: what comes through skip connections
    is dropped out where a pass says so (P-DARTS).
    """

    affine: bool = False
    pool_norm: bool = True
    conv_bias: bool = False
    track: bool = True
    drop_skips: bool = False

    def norm(self, channels: int) -> GroupedNorm:
        """A norm inside an op."""
        return GroupedNorm(channels, affine=self.affine, track=self.track)

    def add_bias(self, module: Biased, channels: int, fan_in: int, name: str = "bias") -> None:
        """Give a module the bias of a convolution, if it has one. A norm follows every one of them."""
        module.add_bias(name, conv_bias(channels, fan_in) if self.conv_bias else None, idle=not self.track)


SEARCH = Style()
EVALUATION = Style(affine=True, pool_norm=False)


class Primitive(Biased):
    """One op: [N, Ci, H, W] -> [N, Co, ceil(H/stride), ceil(W/stride)], before its last norm."""

    normalized: bool = True
    """Whether the output still awaits a batch norm."""
    pure: bool = False
    """Whether the op hands its input on as it is; such an op is exempt from drop path."""

    @property
    def family(self) -> type[Primitive]:
        """The class whose ``run`` serves this op together with others of the family."""
        return type(self)

    @classmethod
    def run(cls, members: Sequence[Primitive], x: Tensor, p: Pass) -> list[Tensor]:
        """The outputs of several ops of one family and one stride that read the same input."""
        return [op(x, p) for op in members]

    @classmethod
    def stacked(cls, members: Sequence[Primitive]) -> Iterable[list[nn.Parameter]]:
        """Weights of several ops that are best side by side where every launch counts: ``run`` stacks them, or their
        gradients come so."""
        return ()

    def forward(self, x: Tensor, p: Pass) -> Tensor:
        """The output of this op alone."""
        return self.family.run([self], x, p)[0]


class Identity(Primitive):
    """``skip_connect`` at stride 1."""

    normalized = False
    pure = True

    @classmethod
    def run(cls, members: Sequence[Primitive], x: Tensor, p: Pass) -> list[Tensor]:
        return [x] * len(members)


class DroppedIdentity(Primitive):
    """``skip_connect`` at stride 1 whose elements are dropped with the rate that the pass says, the others scaled."""

    normalized = False

    @classmethod
    def run(cls, members: Sequence[Primitive], x: Tensor, p: Pass) -> list[Tensor]:
        how = p.skip_dropout
        if how is None:
            return [x] * len(members)
        return [x * how.mask(x) for _ in members]


class Pool(Primitive):
    """``max_pool_3x3`` and ``avg_pool_3x3``: computed once for all edges that leave a node."""

    def __init__(self, stride: int, maximum: bool, style: Style) -> None:
        super().__init__()
        self.stride, self.maximum, self.normalized = stride, maximum, style.pool_norm

    @classmethod
    def run(cls, members: Sequence[Primitive], x: Tensor, p: Pass) -> list[Tensor]:
        return cls.run_beside(members, x, 0)[0]

    @staticmethod
    def run_beside(members: Sequence[Primitive], x: Tensor, count: int) -> tuple[list[Tensor], Sequence[Tensor]]:
        """The outputs of all members, and the input for each of ``count`` other ops that read it."""
        pools = cast(Sequence[Pool], members)
        stride, most = pools[0].stride, sum(op.maximum for op in pools)
        found = readers_and_pools(x, count, stride=stride, maxima=most, averages=len(pools) - most)
        if found is None:
            *others, own = readers(x, count + 1)
            pooled = ops.pool3x3(own, stride=stride, maximum=most > 0, average=most < len(pools))
            found = (
                others,
                () if pooled.maximum is None else readers(pooled.maximum, most),
                () if pooled.average is None else readers(pooled.average, len(pools) - most),
            )
        parts, maxima, averages = found[0], iter(found[1]), iter(found[2])
        return [next(maxima if op.maximum else averages) for op in pools], parts


class _Stage(Biased):
    """A depthwise convolution, then a pointwise one."""

    def __init__(self, channels: int, kernel: int, dilation: int, style: Style) -> None:
        super().__init__()
        self.dilation = dilation
        self.depthwise = conv_weight(channels, 1, kernel, kernel)
        self.pointwise = conv_weight(channels, channels, 1, 1)
        style.add_bias(self, channels, channels)

    @staticmethod
    def run(
        stages: Sequence[_Stage], inputs: Sequence[Tensor], groups: int, stride: int = 1, **norm: Any
    ) -> ops.ReluDepthwise:
        """ReLU, or norm and ReLU, then all stages in one launch, on one input each or all on a single one."""
        found = ops.relu_separable_conv2d(
            inputs,
            [stage.depthwise for stage in stages],
            [stage.pointwise for stage in stages],
            dilations=[stage.dilation for stage in stages],
            stride=stride,
            groups=groups,
            **norm,
        )
        outputs = [biased(out, stage.acting("bias")) for stage, out in zip(stages, found.outputs, strict=True)]
        return found._replace(outputs=outputs)


class DepthwiseConv(Primitive):
    """``sep_conv`` (two stages with a norm between them) and ``dil_conv`` (one stage, dilation 2).

    The first stages of all members read their common input in one launch, and the second stages run in another; on a
    GPU in one for each kernel size.
    """

    def __init__(self, channels: int, kernel: int, stride: int, dilation: int, stages: int, style: Style) -> None:
        super().__init__()
        self.stride = stride
        self.first = _Stage(channels, kernel, dilation, style)
        self.second = _Stage(channels, kernel, 1, style) if stages == 2 else None
        self.norm = style.norm(channels) if stages == 2 else None

    @classmethod
    def run(cls, members: Sequence[Primitive], x: Tensor, p: Pass) -> list[Tensor]:
        convs = cast(Sequence[DepthwiseConv], members)
        outputs = _Stage.run([op.first for op in convs], [x], p.groups, convs[0].stride).outputs
        longer = [
            (i, op.second, op.norm) for i, op in enumerate(convs) if op.second is not None and op.norm is not None
        ]
        if not longer:
            return outputs
        places, stages, norms = zip(*longer, strict=True)
        inputs = [outputs[i] for i in places]
        if norms[0].weight is not None or norms[0].together(x, p) is not None:
            found = _Stage.run(stages, [norm(y, p) for norm, y in zip(norms, inputs, strict=True)], p.groups)
        else:
            mean, rstd = given_together(norms, p)
            found = _Stage.run(stages, inputs, p.groups, normalize=True, mean=mean, rstd=rstd, eps=norms[0].eps)
            record_together(norms, found.mean, found.rstd, elements_per_group(inputs[0], p.groups), p)
        for i, y in zip(places, found.outputs, strict=True):
            outputs[i] = y
        return outputs

    @classmethod
    def stacked(cls, members: Sequence[Primitive]) -> Iterable[list[nn.Parameter]]:
        convs = cast(Sequence[DepthwiseConv], members)
        for stages in ([op.first for op in convs], [op.second for op in convs if op.second is not None]):
            # The order in which one call gives their gradients.
            yield [stage.depthwise for stage in stages] + [stage.pointwise for stage in stages]


class FactorizedReduce(Primitive):
    """ReLU, then two stride-2 1x1 convolutions on pixels one apart, side by side.

    A side of odd length is padded by one zero row or column at the bottom or right for the second (AutoDL).
    """

    def __init__(self, channels_in: int, channels: int, style: Style) -> None:
        super().__init__()
        if channels % 2:
            raise ValueError(f"FactorizedReduce: channels must be even, got {channels}")
        self.even = conv_weight(channels // 2, channels_in, 1, 1)
        self.odd = conv_weight(channels // 2, channels_in, 1, 1)
        style.add_bias(self, channels // 2, channels_in, "even_bias")
        style.add_bias(self, channels // 2, channels_in, "odd_bias")

    @classmethod
    def run(cls, members: Sequence[Primitive], x: Tensor, p: Pass) -> list[Tensor]:
        reduces = cast(Sequence[FactorizedReduce], members)
        if len(reduces) > 1 and stacked.reduces(reduces, x):
            return stacked.reduced(reduces, x)
        return [op._both(x) for op in reduces]

    @classmethod
    def stacked(cls, members: Sequence[Primitive]) -> Iterable[list[nn.Parameter]]:
        return (stacked.weights_of_reductions(cast(Sequence[FactorizedReduce], members)),)

    def _both(self, x: Tensor) -> Tensor:
        out = ops.relu_pointwise_conv2d(x, [self.even, self.odd], stride=2)
        even, odd = self.acting("even_bias"), self.acting("odd_bias")
        return out if even is None or odd is None else biased(out, torch.cat((even, odd)))


class ReluFirst(Primitive):
    """Ops that begin with a ReLU, which is computed once for all of them."""

    @property
    def family(self) -> type[Primitive]:
        return ReluFirst

    @classmethod
    def run(cls, members: Sequence[Primitive], x: Tensor, p: Pass) -> list[Tensor]:
        outputs: dict[int, Tensor] = {}
        calls: list[list[int]] = []
        for group in _alike(members):
            calls += [group] if ReluConv.together(_at(members, group), x) else [[place] for place in group]
        for call, rectified in zip(calls, readers(x.relu(), len(calls)), strict=True):
            if len(call) > 1:
                convs = cast(Sequence[ReluConv], _at(members, call))
                outputs |= zip(call, stacked.convolved(convs, rectified), strict=True)
            else:
                outputs[call[0]] = cast(ReluFirst, members[call[0]]).after_relu(rectified, p)
        return [outputs[place] for place in range(len(members))]

    @classmethod
    def stacked(cls, members: Sequence[Primitive]) -> Iterable[list[nn.Parameter]]:
        return [
            [cast(ReluConv, op).weight for op in _at(members, group)] for group in _alike(members) if len(group) > 1
        ]

    def after_relu(self, x: Tensor, p: Pass) -> Tensor:
        raise NotImplementedError


class ReluConv(ReluFirst):
    """ReLU, then a square convolution: ``simple_conv_3x3`` and ``nor_conv_3x3``.

    Off the CPU all of one size that read one state are one call of the library.
    """

    def __init__(self, channels_in: int, channels: int, kernel: int, stride: int, style: Style) -> None:
        super().__init__()
        self.stride, self.mixed = stride, not style.affine
        self.weight = conv_weight(channels, channels_in, kernel, kernel)
        style.add_bias(self, channels, channels_in * kernel * kernel)

    @staticmethod
    def together(members: Sequence[Primitive], x: Tensor) -> bool:
        """Whether ``members``, several convolutions of one size, are one call on a state like x."""
        convs = cast(Sequence[ReluConv], members)
        # A sum over branches reads channels of an image where they are; a norm of an op's own would copy them.
        plain = len(convs) > 1 and all(op.mixed and op.acting("bias") is None for op in convs)
        return plain and stacked.rectifies(x, [op.weight for op in convs])

    def after_relu(self, x: Tensor, p: Pass) -> Tensor:
        pad = self.weight.shape[-1] // 2
        return conv2d(x, self.weight, self.acting("bias"), (self.stride, self.stride), (pad, pad))


def _alike(members: Sequence[Primitive]) -> list[list[int]]:
    """The places of convolutions of one size and stride, and of every other op on its own."""
    groups: dict[object, list[int]] = {}
    for place, op in enumerate(members):
        kind: object = (op.stride, tuple(op.weight.shape)) if isinstance(op, ReluConv) else place
        groups.setdefault(kind, []).append(place)
    return list(groups.values())


def _at(members: Sequence[Primitive], places: Sequence[int]) -> list[Primitive]:
    return [members[place] for place in places]


class PointwiseConv(Primitive):
    """ReLU, then a 1x1 convolution: ``simple_conv_1x1``, ``nor_conv_1x1`` and the preprocessing of a cell.

    One op with its ReLU; off the CPU all that read one state are one op.
    """

    def __init__(self, channels_in: int, channels: int, stride: int, style: Style) -> None:
        super().__init__()
        self.stride, self.mixed = stride, not style.affine
        self.weight = conv_weight(channels, channels_in, 1, 1)
        style.add_bias(self, channels, channels_in)

    @classmethod
    def run(cls, members: Sequence[Primitive], x: Tensor, p: Pass) -> list[Tensor]:
        convs = cast(Sequence[PointwiseConv], members)
        plain = len(convs) > 1 and all(op.mixed and op.stride == 1 and op.acting("bias") is None for op in convs)
        if plain and stacked.rectifies(x, [op.weight for op in convs]):
            return stacked.pointwise(convs, x)
        return [biased(ops.relu_pointwise_conv2d(x, [op.weight], stride=op.stride), op.acting("bias")) for op in convs]

    @classmethod
    def stacked(cls, members: Sequence[Primitive]) -> Iterable[list[nn.Parameter]]:
        return ([op.weight for op in cast(Sequence[PointwiseConv], members)],)


class SplitConv(ReluFirst):
    """``conv_7x1_1x7`` and ``conv_3x1_1x3``: ReLU, a row convolution, a column convolution."""

    def __init__(self, channels: int, kernel: int, stride: int, style: Style) -> None:
        super().__init__()
        self.stride = stride
        self.row = conv_weight(channels, channels, 1, kernel)
        self.column = conv_weight(channels, channels, kernel, 1)

    def after_relu(self, x: Tensor, p: Pass) -> Tensor:
        pad = self.row.shape[-1] // 2
        return conv2d(
            conv2d(x, self.row, stride=(1, self.stride), padding=(0, pad)),
            self.column,
            stride=(self.stride, 1),
            padding=(pad, 0),
        )


class Bottleneck(ReluFirst):
    """``bottleneck_1x3x1``: ReLU, 1x1, norm, 3x3, norm, 1x1 to 4C, norm, ReLU, 1x1 back to C."""

    def __init__(self, channels: int, stride: int, style: Style) -> None:
        super().__init__()
        self.stride = stride
        self.enter = conv_weight(channels, channels, 1, 1)
        self.enter_norm = style.norm(channels)
        self.middle = conv_weight(channels, channels, 3, 3)
        self.middle_norm = style.norm(channels)
        self.widen = conv_weight(4 * channels, channels, 1, 1)
        self.widen_norm = style.norm(4 * channels)
        self.leave = conv_weight(channels, 4 * channels, 1, 1)

    def after_relu(self, x: Tensor, p: Pass) -> Tensor:
        x = self.enter_norm(pointwise(x, self.enter), p)
        x = self.middle_norm(conv2d(x, self.middle, None, (self.stride, self.stride), (1, 1)), p)
        return pointwise(self.widen_norm(pointwise(x, self.widen), p, relu=True), self.leave)


def _skip(channels: int, stride: int, style: Style) -> Primitive:
    if stride == 1:
        return DroppedIdentity() if style.drop_skips else Identity()
    return FactorizedReduce(channels, channels, style)


def _depthwise(kernel: int, dilation: int, stages: int) -> Callable[[int, int, Style], Primitive]:
    return lambda channels, stride, style: DepthwiseConv(channels, kernel, stride, dilation, stages, style)


_FACTORIES: dict[str, Callable[[int, int, Style], Primitive]] = {
    "max_pool_3x3": lambda channels, stride, style: Pool(stride, True, style),
    "avg_pool_3x3": lambda channels, stride, style: Pool(stride, False, style),
    "skip_connect": _skip,
    "sep_conv_3x3": _depthwise(3, 1, 2),
    "sep_conv_5x5": _depthwise(5, 1, 2),
    "sep_conv_7x7": _depthwise(7, 1, 2),
    "dil_conv_3x3": _depthwise(3, 2, 1),
    "dil_conv_5x5": _depthwise(5, 2, 1),
    "dua_sepc_3x3": _depthwise(3, 1, 2),
    "dua_sepc_5x5": _depthwise(5, 1, 2),
    "dil_sepc_3x3": _depthwise(3, 2, 1),
    "dil_sepc_5x5": _depthwise(5, 2, 1),
    "conv_3x1_1x3": lambda channels, stride, style: SplitConv(channels, 3, stride, style),
    "conv_7x1_1x7": lambda channels, stride, style: SplitConv(channels, 7, stride, style),
    "simple_conv_1x1": lambda channels, stride, style: PointwiseConv(channels, channels, stride, style),
    "simple_conv_3x3": lambda channels, stride, style: ReluConv(channels, channels, 3, stride, style),
    "nor_conv_1x1": lambda channels, stride, style: PointwiseConv(channels, channels, stride, style),
    "nor_conv_3x3": lambda channels, stride, style: ReluConv(channels, channels, 3, stride, style),
    "bottleneck_1x3x1": lambda channels, stride, style: Bottleneck(channels, stride, style),
}


def known_primitives() -> tuple[str, ...]:
    """The names that :func:`primitive` knows."""
    return ("none", *_FACTORIES)


def add_factory(name: str, factory: Callable[[int, int, Style], Primitive]) -> None:
    """Make an op known by name; see :func:`ddarts_ext.nn.register_primitive`."""
    _FACTORIES[name] = factory


def primitive(name: str, channels: int, stride: int = 1, style: Style = SEARCH) -> Primitive | None:
    """The op of that name with ``channels`` in and out, or None for ``none``, which contributes nothing.

    Raises ValueError for an unknown name, a stride other than 1 and 2, or an odd channel count where the op halves it.
    """
    if stride not in (1, 2):
        raise ValueError(f"primitive: stride must be 1 or 2, got {stride}")
    if name == "none":
        return None
    if name not in _FACTORIES:
        raise ValueError(f"primitive: name must be one of {', '.join(known_primitives())}, got {name!r}")
    return _FACTORIES[name](channels, stride, style)
