"""The product of a warp in TF32, as the emulation and as shuffles make it, is the product of the rounded factors."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
import torch
from cuda_emulation import build
from torch import Tensor


@pytest.fixture(scope="module")
def library(emulated: build.Emulated) -> ctypes.CDLL:
    return ctypes.CDLL(str(build.compile_library([Path(build.HERE, "tensor_core.cpp")])))


def product(library: ctypes.CDLL, a: Tensor, b: Tensor, d: Tensor, *, rounds: bool, shuffles: bool) -> Tensor:
    out = torch.full((16, 8), float("nan"))
    pointers = [ctypes.c_void_p(x.contiguous().data_ptr()) for x in (a, b, d, out)]
    library.product(*pointers, int(rounds), int(shuffles))
    return out


def rounded(x: Tensor) -> Tensor:
    """To ten bits of the fraction, halves away from zero."""
    mantissa, exponent = torch.frexp(x.double())
    scaled = mantissa.abs() * 2**11 + 0.5
    return torch.ldexp(scaled.floor() * mantissa.sign() / 2**11, exponent)


def cut(x: Tensor) -> Tensor:
    """To ten bits, as a product reads a factor that was not rounded."""
    return (x.contiguous().view(torch.int32) & ~0x1FFF).view(torch.float32).double()


@pytest.mark.parametrize("order", build.ORDERS)
def test_a_product_is_that_of_the_rounded_factors(library: ctypes.CDLL, order: str) -> None:
    library.emulation_set_order(build.ORDERS.index(order), ctypes.c_uint64(5))
    generator = torch.Generator().manual_seed(0)
    for scale in (1.0, 1e-20, 1e15):
        a, b, d = (torch.randn(rows, 8, generator=generator) for rows in (16, 8, 16))
        a, d = a * scale, d * scale
        exact = d.double() + rounded(a) @ rounded(b)
        assert (exact - d.double() - a.double() @ b.double()).abs().max() > 1e-5 * scale  # it is not exact
        for shuffles in (False, True):
            out = product(library, a, b, d, rounds=True, shuffles=shuffles)
            torch.testing.assert_close(out.double(), exact, rtol=1e-6, atol=1e-6 * scale)


def test_every_element_has_its_place(library: ctypes.CDLL) -> None:
    """Whole numbers of few bits: all ways to the product give the same bits."""
    a, b = torch.arange(128.0).view(16, 8) - 60, torch.arange(64.0).view(8, 8) * 3 - 90
    d = torch.arange(128.0).view(16, 8) * 7
    for shuffles in (False, True):
        assert torch.equal(product(library, a, b, d, rounds=True, shuffles=shuffles), d + a @ b)


def test_factors_that_were_not_rounded_are_cut(library: ctypes.CDLL) -> None:
    a, b, d = torch.full((16, 8), 1 + 2.0**-11), torch.ones(8, 8), torch.zeros(16, 8)
    assert torch.equal(product(library, a, b, d, rounds=False, shuffles=False).double(), cut(a) @ b.double())
    assert torch.equal(product(library, a, b, d, rounds=True, shuffles=False).double(), rounded(a) @ b.double())
    assert not torch.equal(cut(a), rounded(a))


def test_what_is_not_finite_stays_so(library: ctypes.CDLL) -> None:
    a, b, d = torch.ones(16, 8), torch.ones(8, 8), torch.zeros(16, 8)
    a[2, 3], a[5, 1] = float("inf"), float("nan")
    out = product(library, a, b, d, rounds=True, shuffles=False)
    assert (out[2] == float("inf")).all()
    assert out[5].isnan().all()
    assert out[:2].isfinite().all()
