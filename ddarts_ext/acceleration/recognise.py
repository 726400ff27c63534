"""Which modules mix a list of ops, and which are cells made of such modules: by structure, whatever they are called."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from torch import nn

from ddarts_ext.acceleration.adapter import Adapter, adapted
from ddarts_ext.acceleration.copies import Copy
from ddarts_ext.acceleration.layers import channels_of, layers_of
from ddarts_ext.acceleration.plan import is_reduction, readings


@dataclass(frozen=True, eq=False)
class Mixing:
    """A module whose forward, if it is what it looks like, adds up the weighted outputs of its ops.

    ops: every candidate. entrances: what brings the inputs of a cell to its channels. parts: the mixed ops of a cell.
    groups: of how many mixed ops the lists of a cell consist. width: how many candidates the longest mixed op has.
    inputs: channels of what the module reads, where the entrances tell. vague: so many modules look like this that one
    which is none is not worth a word.
    """

    module: nn.Module
    kind: str
    ops: tuple[nn.Module, ...]
    groups: tuple[int, ...]
    width: int
    entrances: tuple[nn.Module, ...] = ()
    parts: tuple[nn.Module, ...] = ()
    inputs: tuple[int, ...] = ()
    vague: bool = False
    adapter: Adapter | None = field(default=None)

    @property
    def edges(self) -> int:
        return sum(self.groups)

    @property
    def channels(self) -> list[int]:
        """Channels of the inputs: those of the entrances, else of the ops."""
        return list(self.inputs) or [next((channels for op in self.ops if (channels := channels_of(op))), 0)]

    def methods(self) -> list[str]:
        return methods_of(self.module)

    def within(self, copied: Copy) -> Mixing:
        """The same of the copy."""
        return replace(
            self,
            module=copied[self.module],
            ops=tuple(copied[op] for op in self.ops),
            entrances=tuple(copied[entrance] for entrance in self.entrances),
            parts=tuple(copied[part] for part in self.parts),
        )


def methods_of(module: nn.Module) -> list[str]:
    """The methods that may be routed: ``forward`` and those that are called ``forward_...``."""
    names = [name for name in dir(type(module)) if name == "forward" or name.startswith("forward_")]
    return [name for name in names if inspect.isfunction(getattr(type(module), name))]


class Recogniser:
    """What modules look like; every module is looked at once."""

    def __init__(self) -> None:
        self._known: dict[nn.Module, list[Mixing]] = {}

    def of(self, module: nn.Module) -> list[Mixing]:
        """What the module may be, likeliest first."""
        if module not in self._known:
            self._known[module] = [] if _is_list(module) or is_reduction(module) else list(self._guesses(module))
        return self._known[module]

    def _guesses(self, module: nn.Module) -> Iterator[Mixing]:
        known = adapted(module)
        if known is not None:
            yield Mixing(module, "mixed op", tuple(known[1]), (1,), len(known[1]), adapter=known[0])
            return
        containers = [child for child in module._modules.values() if child is not None and _is_list(child)]
        for container in containers:
            yield from self._of_mixed_ops(module, container)
        for container in containers:
            lists = [_items(item) for item in _items(container) if _is_list(item)]
            if lists and len(lists) == len(container._modules) and all(_is_op_list(ops) for ops in lists):
                every = tuple(op for ops in lists for op in ops)
                yield Mixing(module, "cell", every, (len(lists),), max(map(len, lists)))
        for container in containers:
            if _is_op_list(_items(container)):
                ops = tuple(_items(container))
                yield Mixing(module, "mixed op", ops, (1,), len(ops))
        children = tuple(child for child in module._modules.values() if child is not None)
        if type(module) is not nn.Sequential and _is_choice(children):
            yield Mixing(module, "mixed op", children, (1,), len(children), vague=True)

    def _of_mixed_ops(self, module: nn.Module, container: nn.Module) -> Iterator[Mixing]:
        """A cell whose ``container`` holds its mixed ops, in lists of lists or inside of blocks."""
        items, groups = _leaves(container)
        mixed = [self._mixed_op(item) for item in items]
        edges = [edge for edge in mixed if edge is not None]
        if not edges or len(edges) < len(mixed):
            return
        children = [child for child in module._modules.values() if child is not None and child is not container]
        listed = [item for child in children if _is_list(child) for item in _leaves(child)[0]]
        direct, beside = ([one for one in some if is_sequence(one)] for some in (children, listed))
        inputs = [channels for one in direct or beside[:1] if (channels := channels_of(one))]
        yield Mixing(
            module,
            "cell",
            tuple(op for edge in edges for op in edge.ops),
            groups,
            max(edge.width for edge in edges),
            tuple(one for one in (*direct, *beside)),
            tuple(edge.module for edge in edges),
            tuple(inputs),
        )

    def _mixed_op(self, item: nn.Module) -> Mixing | None:
        """The mixed op that the item is, or that is all which a block holds."""
        guesses = [guess for guess in self.of(item) if not guess.vague]
        if guesses:
            return guesses[0] if guesses[0].kind == "mixed op" else None
        children = [child for child in item._modules.values() if child is not None and any(child.children())]
        return self._mixed_op(children[0]) if len(children) == 1 and not _is_list(children[0]) else None


def is_sequence(module: nn.Module) -> bool:
    """Whether a module is made of layers that the kernels know."""
    return (bool(layers_of(module)) or is_reduction(module)) and any(True for _ in readings(module))


def _is_list(module: nn.Module) -> bool:
    return isinstance(module, nn.ModuleList | nn.ModuleDict)


def _items(container: nn.Module) -> list[nn.Module]:
    return [child for child in container._modules.values() if child is not None]


def _leaves(container: nn.Module) -> tuple[list[nn.Module], tuple[int, ...]]:
    """What a list, or a list of lists, holds, and how many each list does."""
    items = _items(container)
    if not items or not all(_is_list(item) for item in items):
        return items, (len(items),)
    inner = [_leaves(item) for item in items]
    return [leaf for leaves, _ in inner for leaf in leaves], tuple(n for _, groups in inner for n in groups)


def _is_op_list(modules: Sequence[nn.Module]) -> bool:
    """Two or more ops, at least one of which does more than hand its input on."""
    if len(modules) < 2 or any(_is_list(module) for module in modules):
        return False
    return any(is_sequence(module) and not isinstance(module, nn.Identity | nn.ReLU) for module in modules)


def _is_choice(children: Sequence[nn.Module]) -> bool:
    """Whether the children may be candidates: two or more of several layers, and the others without parameters."""
    several = [child for child in children if any(child.children()) and is_sequence(child)]
    others = [child for child in children if child not in several and next(child.parameters(), None) is not None]
    channels = {channels_of(child) for child in several}
    return len(several) > 1 and not others and len(channels) == 1
