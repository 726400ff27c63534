"""What of a network lies on no path from the image to the output, and so is trained for nothing."""

from __future__ import annotations

from collections.abc import Iterator

from ddarts_ext.genotype import Genotype
from ddarts_ext.nn.nasbench201 import NASBench201Network
from ddarts_ext.nn.network import DiscreteNetwork


def dead_parameters(network: DiscreteNetwork | NASBench201Network, *, auxiliary: bool | None = None) -> tuple[str, ...]:
    """The names of the parameters on no path from the image to the logits, in the order of ``named_parameters``.

    They are all of a dead cell (:meth:`Genotype.dead_cells`), the preprocessing of inputs that a cell's output is not
    made of, entries whose node reaches no node that is joined, and the part of a stem that no cell reads. auxiliary:
    whether the auxiliary classifier is trained too, and with it the cell that it reads; where the network has one when
    left out. In a network with two inputs per cell these are the parameters without gradient. In a NAS-Bench-201
    network norms behind a node that is zero still shift it by their biases.
    """
    if isinstance(network, DiscreteNetwork):
        trained = network.auxiliary is not None if auxiliary is None else auxiliary
        prefixes = tuple(_two_inputs(network, (network.auxiliary_after,) if trained else ()))
    else:
        prefixes = tuple(_one_input(network))
    return tuple(name for name, _ in network.named_parameters() if name.startswith(prefixes))


def dead_note(network: DiscreteNetwork | NASBench201Network, *, auxiliary: bool | None = None) -> str:
    """One line that names dead cells, entries and inputs with their number of parameters; empty if there are none."""
    names = set(dead_parameters(network, auxiliary=auxiliary))
    count = sum(parameter.numel() for name, parameter in network.named_parameters() if name in names)
    parts = []
    if isinstance(network, DiscreteNetwork):
        trained = network.auxiliary is not None if auxiliary is None else auxiliary
        cells = network.genotype.dead_cells((network.auxiliary_after,) if trained else ())
        lost = dead_entries(network.genotype)
    else:
        cells = tuple(range(len(network.cells))) if network.genotype.dead_cells() else ()
        lost = {} if cells else dead_entries(network.genotype)
    if cells:
        parts.append(f"cells on no path from the image to the output: {', '.join(map(str, cells))}")
    entries = [f"{i}: {' '.join(found)}" for i, found in lost.items() if i not in cells]
    if entries:
        parts.append(f"entries that reach no output, by cell: {'; '.join(entries)}")
    if count:
        parts.append(f"{count:,} parameters that nothing trains")
    return "; ".join(parts)


def dead_entries(genotype: Genotype) -> dict[int, list[str]]:
    """By cell the entries that its output is not made of, but those of op ``none``; cells without such left out.

    An entry may lack a path to the output or, where it reads a node that does not exist, one from the image.
    """
    found = {}
    for i, cell in enumerate(genotype.cells):
        used = set(genotype.used(i))
        lost = [str(entry) for entry in cell if entry.op != "none" and entry not in used]
        if lost:
            found[i] = lost
    return found


def _two_inputs(network: DiscreteNetwork, also: tuple[int, ...]) -> Iterator[str]:
    """Where the names of dead parameters begin."""
    genotype, dead = network.genotype, network.genotype.dead_cells(also)
    for i in range(genotype.layers):
        if i in dead:
            yield f"cells.{i}."
            continue
        reads, used = genotype.reads(i), set(genotype.used(i))
        yield from (f"cells.{i}.preprocess{node}." for node in range(2) if node not in reads)
        yield from (f"cells.{i}.graph.ops.{k}." for k, entry in enumerate(genotype.live(i)) if entry not in used)
    # The second output of the stem, after its last convolution, is node 1 of the first cell and node 0 of the second.
    readers = ((0, 1), (1, 0))
    if not any(i < genotype.layers and i not in dead and node in genotype.reads(i) for i, node in readers):
        yield "stem.conv1."


def _one_input(network: NASBench201Network) -> Iterator[str]:
    genotype = network.genotype
    if genotype.dead_cells():
        yield from ("stem.", "blocks.", "cells.")
        return
    used = set(genotype.used(0))
    dead = [k for k, entry in enumerate(network.entries) if entry not in used]
    yield from (f"cells.{i}.ops.{k}." for i in range(len(network.cells)) for k in dead)
