"""Registration shared by every op: schema, reference, fake, autograd. Compiled libraries add the device kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ddarts_ext.ops import _checks, _forward_mode
from ddarts_ext.ops._autograd import register_autograd

NAMESPACE = "ddarts_ext"
_library = torch.library.Library(NAMESPACE, "DEF")  # type: ignore[no-untyped-call]
_names: list[str] = []


def define_op(
    signature: str,
    *,
    reference: Callable[..., Any],
    fake: Callable[..., Any],
    backward: Callable[..., Any] | None = None,
    setup_context: Callable[..., None] | None = None,
) -> Callable[..., Any]:
    """Define one op of the namespace and return it: arguments by position, all of them.

    signature: schema without the namespace, e.g. ``"scale(Tensor x, float a) -> Tensor"``.
    reference: plain torch; the fallback on every device (CompositeExplicitAutograd) and the oracle of the tests.
    fake: output shapes, dtypes and strides, for ``torch.compile`` and meta tensors.
    backward, setup_context: as for ``torch.library.register_autograd``; without them the op has no gradient.
    """
    reference = _checks.out_of_autocast(reference)
    _library.define(signature)  # type: ignore[no-untyped-call]
    name = signature.split("(", 1)[0]
    qualified = f"{NAMESPACE}::{name}"
    _library.impl(name, _dense_alone(name, reference), "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
    torch.library.register_fake(qualified, fake, lib=_library)
    _names.append(name)
    overload: Callable[..., Any] = getattr(getattr(torch.ops, NAMESPACE), name).default
    _library.impl(name, _negated_resolved(name, overload), "Negative", with_keyset=True)  # type: ignore[no-untyped-call]
    if backward is None:
        return _forward_mode.without_gradient(overload, reference)
    return register_autograd(_library, overload, backward, setup_context, reference)


def _dense_alone(name: str, reference: Callable[..., Any]) -> Callable[..., Any]:
    """The reference, which raw calls may hand tensors that torch's own functions do not survive (quantised ones)."""

    def checked(*args: Any) -> Any:
        _check_dense(name, args)
        return reference(*args)

    return checked


def _negated_resolved(name: str, overload: Any) -> Callable[..., Any]:
    """What torch does for a negated view (of a complex tensor's imaginary part, say) where an op does nothing.

    Its own way never ends for a quantised one, as it asks the view for its scheme on the way to resolve it.
    """
    after = torch._C._dispatch_keyset_full_after(torch._C.DispatchKey.Negative)

    def resolved(keyset: Any, *args: Any) -> Any:
        _check_dense(name, args)
        plain = [value.resolve_neg() if isinstance(value, torch.Tensor) else _resolved_entries(value) for value in args]
        return overload.redispatch(keyset & after, *plain)

    return resolved


def _resolved_entries(value: Any) -> Any:
    if not isinstance(value, (list, tuple)):
        return value
    return [entry.resolve_neg() if isinstance(entry, torch.Tensor) else entry for entry in value]


def _check_dense(name: str, args: Sequence[Any]) -> None:
    for x in _forward_mode.tensors_of(args):
        if x.is_quantized or x.is_complex() or x.layout != torch.strided:
            got = f"{_checks.dtype_name(x.dtype)} in the layout {_checks.dtype_name(x.layout)}"
            raise TypeError(f"{name}: tensors must be dense, real and not quantised, got {got}")


def defined_ops() -> Sequence[str]:
    """Names of all ops defined so far, in order of definition."""
    return tuple(_names)


def has_kernel(name: str, device_type: str) -> bool:
    """Whether a compiled kernel (not the reference) serves the op on this device type."""
    key = {"cpu": "CPU", "cuda": "CUDA"}[device_type]
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(f"{NAMESPACE}::{name}", key))
