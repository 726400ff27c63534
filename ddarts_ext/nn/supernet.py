"""The supernet of the two-input spaces: stem, search cells, head."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ddarts_ext.nn.cell import Cell
from ddarts_ext.nn.forward_pass import Pass
from ddarts_ext.nn.norm import GroupedNorm, updating
from ddarts_ext.nn.stem import Stem, check_images, check_network
from ddarts_ext.spaces import Space


class Supernet(nn.Module):
    """A network of ``cells`` search cells; channels double at every reduction (DARTS, section 3.1).

    space: from ``ddarts_ext.spaces.get``. reductions: indices of the reduction cells, {cells//3, 2*cells//3} when left
    out. stem: ``cifar``, ``imagenet`` or ``imagenet_stride4``. partial: ops see one part in so many of the channels,
    see :mod:`.partial`. drop_skips: see :class:`.SearchGraph`. Raises ValueError for impossible sizes.
    """

    def __init__(
        self,
        space: Space,
        cells: int = 8,
        channels: int = 16,
        classes: int = 10,
        *,
        in_channels: int = 3,
        stem: str = "cifar",
        reductions: Sequence[int] | None = None,
        partial: int = 1,
        drop_skips: bool = False,
    ) -> None:
        super().__init__()
        check_network("Supernet", cells=cells, channels=channels, classes=classes, in_channels=in_channels)
        self.space, self.in_channels, self.classes = space, in_channels, classes
        self.reductions = reduction_indices(
            "Supernet", space.reductions(cells) if reductions is None else reductions, cells
        )
        self.stem = Stem(stem, in_channels, channels)
        self.cells = nn.ModuleList()
        previous = current = self.stem.channels
        halved = self.stem.reduces
        for i in range(cells):
            reduction = i in self.reductions
            channels *= 2 if reduction else 1
            how = {"reduction": reduction, "previous_reduction": halved, "index": i}
            how |= {"partial": partial, "drop_skips": drop_skips}
            cell = Cell(space, previous, current, channels, **how)  # type: ignore[arg-type]
            previous, current, halved = current, cell.out_channels, reduction
            self.cells.append(cell)
        self.norm = GroupedNorm(current, affine=True) if space.final_norm else None
        self.classifier = nn.Linear(current, classes)

    @property
    def divisor(self) -> int:
        """By which the sides of images are divided on the way."""
        return self.stem.stride * (1 << len(self.reductions))

    def stem_states(self, x: Tensor, p: Pass) -> tuple[Tensor, Tensor]:
        """Images -> the two states that the first cell reads."""
        check_images("Supernet", x, self.in_channels, self.divisor)
        states: tuple[Tensor, Tensor] = self.stem(x, p)
        return states

    def head(self, s1: Tensor, p: Pass | None = None) -> Tensor:
        """The last state -> logits [N, classes]."""
        if self.norm is not None:
            s1 = self.norm(s1, Pass.default(self.training) if p is None else p, relu=True)
        logits: Tensor = self.classifier(s1.mean((2, 3)))
        return logits

    def forward(self, x: Tensor, weights: Tensor, p: Pass | None = None) -> Tensor:
        """Logits [N, classes] of images [N, in_channels, H, W].

        weights: [cells, E, O], or [groups, cells, E, O] where groups differ: already relaxed, rows shared or not.
        p: how norms treat the batch; by default as ``train()`` or ``eval()`` says.
        """
        rows = cell_weights("Supernet", weights, len(self.cells))
        with updating(Pass.default(self.training) if p is None else p) as together:
            s0, s1 = self.stem_states(x, together)
            for cell, row in zip(self.cells, rows, strict=True):
                s0, s1 = s1, cell(s0, s1, row, together)
            return self.head(s1, together)


def cell_weights(name: str, weights: Tensor, cells: int) -> tuple[Tensor, ...]:
    """One [E, O] or [groups, E, O] per cell, by one op whose backward is one op."""
    if weights.dim() not in (3, 4) or weights.shape[-3] != cells:
        raise ValueError(
            f"{name}: weights must be [cells,E,O] with {cells} cells or [G,cells,E,O], got {list(weights.shape)}"
        )
    return weights.unbind(-3)


def reduction_indices(name: str, reductions: Sequence[int], cells: int) -> tuple[int, ...]:
    """The indices, sorted and checked."""
    found = tuple(sorted(set(reductions)))
    for index in found:
        if not 0 <= index < cells:
            raise ValueError(f"{name}: reductions must be in 0..{cells - 1}, got {index}")
    return found
