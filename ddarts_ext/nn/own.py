"""Ops of one's own, by name, in search spaces and in networks."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ddarts_ext import spaces
from ddarts_ext.nn.forward_pass import Pass
from ddarts_ext.nn.plain import layers
from ddarts_ext.nn.primitives import Primitive, add_factory, known_primitives

_SIDE = 8


class Wrapped(Primitive):
    """An op that a plain module computes; the batch norm after it is the network's."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor, p: Pass) -> Tensor:
        out: Tensor = self.module(x)
        return out


def register_primitive(name: str, build: Callable[[int, int], nn.Module]) -> None:
    """Make an op known by ``name``, for the ops of a :class:`ddarts_ext.spaces.Space` and for genotypes.

    build: ``build(channels, stride)`` gives a module [N, C, H, W] -> [N, C, ceil(H / stride), ceil(W / stride)] for
    strides 1 and 2. A batch norm follows every op, without affine part in a search and with it in a network, so the
    module itself must have none. It must treat every image by itself, as a batch may hold several groups of them.
    The name stands in genotypes: programs that read them register the op first.
    Raises ValueError for a name that another op has, and for a module that gives other shapes, changes its input or has
    batch norms.
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"register_primitive: name must be a name of letters, digits and _, got {name!r}")
    if name in known_primitives() and layers.OWN.get(name) is not build:
        raise ValueError(f"register_primitive: name must be that of no other op, got {name!r}")
    if not callable(build):
        raise TypeError(
            f"register_primitive: build must be a function of channels and stride, got {type(build).__name__}"
        )
    try:
        inspect.signature(build).bind(4, 1)
    except TypeError as error:
        raise TypeError(
            f"register_primitive: build of {name} must take channels and stride, got one of {inspect.signature(build)}"
        ) from error
    except ValueError:  # built-in callables have no signature to look at
        pass
    for stride in (1, 2):
        _check(name, build(4, stride), stride)
    spaces.add_op(name)
    layers.OWN[name] = build
    add_factory(name, lambda channels, stride, style: Wrapped(build(channels, stride)))


def _check(name: str, module: object, stride: int) -> None:
    if not isinstance(module, nn.Module):
        raise TypeError(f"register_primitive: build of {name} must give a module, got {type(module).__name__}")
    if any(isinstance(part, _BatchNorm) for part in module.modules()):
        raise ValueError(f"register_primitive: build of {name} must have no batch norm: the network adds one after it")
    side = _SIDE + 1
    expected = [2, 4, -(-side // stride), -(-_SIDE // stride)]
    x = torch.linspace(-1, 1, 2 * 4 * side * _SIDE).view(2, 4, side, _SIDE)
    before = x.clone()
    with torch.no_grad():
        found = list(module(x).shape)
    if not torch.equal(x, before):
        raise ValueError(
            f"register_primitive: build of {name} must leave its input as it is, which other ops read too, got one "
            "that changes it (a ReLU with inplace=True at its beginning?)"
        )
    if found != expected:
        raise ValueError(
            f"register_primitive: build of {name} must give {expected} of [2, 4, {side}, {_SIDE}] at stride {stride}, "
            f"got {found}"
        )
