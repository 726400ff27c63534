"""One tolerance table for the tests of all ops, per dtype of the tensors compared.

Low precision is compared with the reference computed in float64 from the same rounded inputs: what is allowed is a few
roundings of the output, as sums are accumulated in float32. ``GRADIENT`` also covers rounding of what a backward reads.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tolerance:
    rtol: float
    atol: float


VALUE = {
    torch.float64: Tolerance(1e-10, 1e-11),
    torch.float32: Tolerance(2e-5, 2e-5),
    torch.float16: Tolerance(2e-3, 2e-3),
    torch.bfloat16: Tolerance(1.6e-2, 1.6e-2),
}
GRADIENT = {
    torch.float64: Tolerance(1e-9, 1e-10),
    torch.float32: Tolerance(1e-4, 1e-4),
    torch.float16: Tolerance(5e-3, 5e-3),
    torch.bfloat16: Tolerance(3e-2, 3e-2),
}
DTYPES = tuple(VALUE)


def assert_close(
    actual: Tensor, expected: Tensor, dtype: torch.dtype | None = None, *, gradient: bool = False, scaled: bool = True
) -> None:
    """``actual`` equals ``expected`` within the row of ``dtype`` (default: the dtype of ``actual``).

    scaled: let atol grow with the largest finite entry of ``expected``, as the error of a long sum does.
    """
    row = (GRADIENT if gradient else VALUE)[dtype or actual.dtype]
    atol = row.atol
    if scaled and expected.numel():
        finite = expected[expected.isfinite()]
        atol *= max(1.0, float(finite.detach().abs().max())) if finite.numel() else 1.0
    torch.testing.assert_close(actual.double(), expected.double(), rtol=row.rtol, atol=atol, equal_nan=True)
