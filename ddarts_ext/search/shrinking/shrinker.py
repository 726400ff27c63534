"""``Shrinker``: search by shrinking a supernet (IS-DARTS, 2312.12648)."""

from __future__ import annotations

from ddarts_ext.search.searcher import Searcher


class Shrinker(Searcher):
    """A :class:`Searcher` whose method removes the ops of a supernet whose feature maps tell least, step by step.

    All training images train the weights. There are no alphas: ops are mixed by binary masks, and compared by
    :func:`ddarts_ext.ops.channel_iim` of their outputs, on each edge (``nasbench201``, one op stays) or over all edges
    into a node (``darts``, two stay). A removed op is not computed any more. ``mask`` of the result says what is left.

    method: ``isdarts`` or a :class:`Method` with ``shrinking``. The other arguments are those of the Searcher, which
    takes such methods as well; of its settings, space: ``nasbench201`` or ``darts``, with the published settings of
    each; cells: of the whole supernet, in ``nasbench201`` three stages share them; split: with ``shrink_by="alphas"``,
    the part of the images that trains weights, the rest trains the alphas; and any field of :class:`Shrinking`, such as
    ``shrink_steps=1``.

    Raises ValueError, TypeError or FileNotFoundError for wrong input, before anything is computed or written.
    """

    usual = "isdarts"

    def _check_kind(self) -> None:
        if self.config.method.shrinking is None:
            raise ValueError(f"search: method {self.config.method.name} must be searched by Searcher")
