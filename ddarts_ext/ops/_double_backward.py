"""Second and higher derivatives of the ops: a backward op's own gradient, taken through its reference in plain torch.

The fused backward kernels are differentiated rarely (``gradgradcheck``, the unrolled architect with exact Hessian
products), so their gradient is autograd through the reference: right for every op by construction, without a kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ddarts_ext.ops._checks import out_of_autocast


def through_reference(reference: Callable[..., Any]) -> dict[str, Any]:
    """What :func:`define_op` takes to differentiate ``reference`` itself."""

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        leaves, ctx.spec = pytree.tree_flatten(list(inputs))
        ctx.slots = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        ctx.others = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        ctx.save_for_backward(*(leaves[i] for i in ctx.slots))

    def backward(ctx: Any, *grads: Any) -> Any:
        # Without autocast the reference, and the gradients through it, which have products as well.
        return out_of_autocast(differentiate)(list(ctx.saved_tensors), ctx, grads)

    def differentiate(saved: list[Tensor], ctx: Any, grads: tuple[Any, ...]) -> Any:
        leaves, further = list(ctx.others), torch.is_grad_enabled()
        with torch.enable_grad():
            for slot, tensor in zip(ctx.slots, saved, strict=True):
                if not tensor.is_floating_point():
                    leaves[slot] = tensor
                elif not further:
                    leaves[slot] = tensor.detach().requires_grad_(True)
                else:
                    # Who differentiates the result goes on from here to the tensor. A view, as gradients with respect
                    # to one tensor must not go through another that was made of it.
                    leaves[slot] = tensor.view_as(tensor) if tensor.requires_grad else tensor
            inputs = pytree.tree_unflatten(leaves, ctx.spec)
            outputs = reference(*inputs)
        out_leaves = pytree.tree_leaves(outputs if isinstance(outputs, tuple) else (outputs,))
        # None entries of the incoming gradients must keep their place beside the outputs.
        grad_leaves = pytree.tree_leaves(list(grads), is_leaf=lambda node: node is None)
        pairs = [
            (out, grad)
            for out, grad in zip(out_leaves, grad_leaves, strict=True)
            if isinstance(out, Tensor) and out.requires_grad and grad is not None
        ]
        wanted = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.requires_grad]
        found: list[Tensor | None] = [None] * len(wanted)
        if pairs:
            found = list(
                torch.autograd.grad(
                    [p[0] for p in pairs], wanted, [p[1] for p in pairs], allow_unused=True, create_graph=further
                )
            )
        gradients = iter(found)
        result = [next(gradients) if isinstance(leaf, Tensor) and leaf.requires_grad else None for leaf in leaves]
        shaped = pytree.tree_unflatten(result, ctx.spec)
        # A list of flags or integers wants one None, a list of tensors one entry for each.
        holds_tensor = [any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(given)) for given in inputs]
        return tuple(entry if holds else None for entry, holds in zip(shaped, holds_tensor, strict=True))

    return {"backward": backward, "setup_context": setup_context}
