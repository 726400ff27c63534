"""Which cells of a network lie on a path from the image to the output.

With two inputs, cell i reads the outputs of cell i - 2 (node 0) and of cell i - 1 (node 1); the stem stands before the
first cell. With one input a cell reads the one before it.
"""

from collections.abc import Collection, Sequence


def dead_cells(reads: Sequence[Collection[int]], inputs: int, also: Collection[int] = ()) -> tuple[int, ...]:
    """The cells without a path through them from the image to the output of the last cell.

    reads: for every cell the input nodes that its output is made of; none for a cell without output. also: cells whose
    output counts as well, as where an auxiliary classifier reads it.
    """
    sources = [[i - inputs + node for node in nodes] for i, nodes in enumerate(reads)]
    # Before the first cell stands the stem. A cell that reads one without output cannot be computed either.
    from_image: list[bool] = []
    for found in sources:
        from_image.append(bool(found) and all(source < 0 or from_image[source] for source in found))
    to_output = [i in also for i in range(len(reads))]
    to_output[-1] = True
    for i in reversed(range(len(reads))):
        if to_output[i] and from_image[i]:
            for source in sources[i]:
                if source >= 0:
                    to_output[source] = True
    return tuple(i for i in range(len(reads)) if not (from_image[i] and to_output[i]))
