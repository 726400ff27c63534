"""channel_iim: the published check values, the published formula, and the kernels against the reference."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from ops.tolerances import DTYPES, assert_close
from torch import Tensor

from ddarts_ext.ops.channel_iim import channel_iim, channel_iim_reference

SHAPES = [(2, 16, 8, 8), (3, 5, 3, 7), (1, 40, 9, 9), (2, 2, 1, 1), (2, 1, 4, 4), (0, 4, 3, 3), (2, 130, 2, 3)]
FORMATS = [torch.contiguous_format, torch.channels_last]


def published(x: Tensor) -> Tensor:
    """Per sample, the formula as the published code has it: the mean over C, H, W of 3(x - mu)^2 / s^6."""
    mean, std = x.mean(1, keepdim=True), x.std(1, keepdim=True, unbiased=True)
    return (3 * (x - mean) ** 2 / std**6).mean((1, 2, 3)).nan_to_num(nan=math.inf, posinf=math.inf)


def check_map() -> Tensor:
    n = torch.arange(72, dtype=torch.float64)
    return torch.sin(0.37 * n**2).reshape(2, 4, 3, 3)


def statistics(maps: list[Tensor], groups: int) -> tuple[Tensor, Tensor]:
    """Batch statistics [G,K,C] in float64."""
    mean, rstd = [], []
    for x in maps:
        split = x.double().reshape(groups, -1, *x.shape[1:])
        mean.append(split.mean((1, 3, 4)))
        rstd.append((split.var((1, 3, 4), unbiased=False) + 1e-5).rsqrt())
    return torch.stack(mean, 1), torch.stack(rstd, 1)


def random_maps(count: int, shape: tuple[int, ...], dtype: torch.dtype, format_: torch.memory_format) -> list[Tensor]:
    return [(2 + torch.randn(shape)).to(dtype).contiguous(memory_format=format_) for _ in range(count)]


@pytest.mark.parametrize("format_", FORMATS)
def test_published_check_values(format_: torch.memory_format) -> None:
    x = check_map().contiguous(memory_format=format_)
    assert channel_iim([x]).mean().item() == pytest.approx(392.9372689971, rel=1e-12)
    m = channel_iim([x], form="paper")[0]
    assert m.tolist() == pytest.approx([8.874596986e-4, 2.24750746e-3], rel=1e-9)
    biased = 931.4068598451  # what a division by C instead of C - 1 would give
    assert channel_iim([x]).mean().item() * (4 / 3) ** 3 == pytest.approx(biased, rel=1e-12)


def test_equals_the_published_formula() -> None:
    maps = random_maps(3, (4, 6, 5, 5), torch.float64, torch.contiguous_format)
    torch.testing.assert_close(channel_iim(maps), torch.stack([published(x) for x in maps]), rtol=1e-10, atol=0)


def test_both_forms_order_samples_alike() -> None:
    maps = random_maps(1, (16, 8, 4, 4), torch.float64, torch.contiguous_format)
    assert torch.equal(channel_iim(maps)[0].argsort(), channel_iim(maps, form="paper")[0].argsort(descending=True))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("value", [0.0, 0.1, 1234.5])
def test_a_pixel_without_variance_is_infinite(dtype: torch.dtype, format_: torch.memory_format, value: float) -> None:
    x = random_maps(1, (3, 20, 3, 3), dtype, format_)[0]
    x[1, :, 2, 1] = value
    x[2] = value
    code, paper = channel_iim([x])[0], channel_iim([x], form="paper")[0]
    assert code.isinf().tolist() == [False, True, True]
    assert paper[1:].tolist() == [0.0, 0.0]
    assert paper[0] > 0


def test_one_channel_counts_as_no_variance() -> None:
    x = torch.randn(2, 1, 3, 3)
    assert channel_iim([x]).isposinf().all()
    assert torch.equal(channel_iim([x], form="paper"), torch.zeros(1, 2))


@pytest.mark.parametrize("format_", FORMATS)
def test_stable_for_a_large_mean(format_: torch.memory_format) -> None:
    x = torch.randn(2, 16, 4, 4, dtype=torch.float64)
    shifted = (x.float() + 4096).contiguous(memory_format=format_)
    assert_close(channel_iim([shifted]), channel_iim([shifted.double()]), torch.float32)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("form", ["code", "paper"])
def test_equals_reference(shape: Any, dtype: torch.dtype, format_: torch.memory_format, form: Any) -> None:
    maps = random_maps(2, shape, dtype, format_)
    expected = channel_iim_reference([x.double() for x in maps], None, None, [False, False], form == "paper")
    actual = channel_iim(maps, form=form)
    assert actual.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert_close(actual, expected, actual.dtype)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_raw_maps_with_statistics(groups: int, format_: torch.memory_format, dtype: torch.dtype) -> None:
    maps = random_maps(3, (4, 24, 5, 5), dtype, format_)
    mean, rstd = statistics(maps, groups)
    flags = [True, False, True]
    expected = channel_iim_reference([x.double() for x in maps], mean, rstd, flags, False)
    assert_close(channel_iim(maps, mean=mean, rstd=rstd, normalize=flags), expected, torch.float32)
    by_hand = torch.nn.functional.batch_norm(maps[0].double()[: 4 // groups], None, None, training=True)
    torch.testing.assert_close(expected[0, : 4 // groups], published(by_hand), rtol=1e-9, atol=0)


def test_mixed_dtypes_layouts_and_strides() -> None:
    base = torch.randn(2, 8, 6, 12)
    maps = [
        base[..., :6],
        base[..., 6:].contiguous(memory_format=torch.channels_last),
        base[..., ::2].to(torch.bfloat16),
        base[:1, :, :, :6].expand(2, -1, -1, -1).half(),
    ]
    expected = channel_iim_reference([x.double() for x in maps], None, None, [False] * 4, False)
    assert_close(channel_iim(maps), expected, torch.float32)
    widened = channel_iim([maps[0], maps[1].double()])
    assert widened.dtype == torch.float64
    assert_close(widened, expected[:2], torch.float32)


def test_many_maps() -> None:
    maps = random_maps(150, (1, 4, 2, 2), torch.float32, torch.contiguous_format)
    expected = channel_iim_reference([x.double() for x in maps], None, None, [False] * 150, False)
    assert_close(channel_iim(maps), expected, torch.float32)


def test_thread_count_does_not_change_the_result() -> None:
    maps = random_maps(2, (8, 16, 16, 16), torch.float32, torch.contiguous_format)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = channel_iim(maps)
        torch.set_num_threads(3)
        assert torch.equal(one, channel_iim(maps))
    finally:
        torch.set_num_threads(threads)


def test_no_gradient() -> None:
    x = torch.randn(2, 4, 3, 3, requires_grad=True)
    assert not channel_iim([x]).requires_grad


def test_opcheck_and_compile() -> None:
    maps = random_maps(2, (2, 4, 3, 3), torch.float32, torch.channels_last)
    mean, rstd = (t.float() for t in statistics(maps, 2))
    torch.library.opcheck(torch.ops.ddarts_ext.channel_iim.default, (maps, mean, rstd, [True, False], False))
    compiled = torch.compile(lambda a, b: channel_iim([a, b]) * 2, fullgraph=True)
    assert_close(compiled(*maps), 2 * channel_iim(maps))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (lambda x: ([],), ValueError, "maps must be a non-empty list"),
        (lambda x: ([x[0]],), ValueError, r"maps\[0\] must be \[N,C,H,W\], got \[4, 3, 3\]"),
        (lambda x: ([x.int()],), TypeError, r"maps\[0\] must be float64"),
        (lambda x: ([x, x[:1]],), ValueError, r"maps\[1\] must be .*got \[1, 4, 3, 3\]"),
        (lambda x: ([x[:, :0]],), ValueError, "at least one channel"),
        (lambda x: ([x], {"form": "biased"}), ValueError, "form must be"),
        (lambda x: ([x], {"normalize": [True]}), ValueError, "mean and rstd must be given"),
        (lambda x: ([x], {"normalize": [True, False]}), ValueError, "one flag per map"),
        (lambda x: ([x], {"mean": x.new_zeros(1, 1, 4)}), ValueError, "given together"),
        (lambda x: ([x], {"mean": x.new_zeros(1, 1, 5), "rstd": x.new_zeros(1, 1, 5)}), ValueError, "mean must be"),
        (lambda x: ([x], {"mean": x.new_zeros(3, 1, 4), "rstd": x.new_zeros(3, 1, 4)}), ValueError, "groups=3"),
    ],
)
def test_errors(arguments: Any, error: type[Exception], message: str) -> None:
    positional = arguments(torch.randn(2, 4, 3, 3))
    named = positional[1] if len(positional) > 1 else {}
    with pytest.raises(error, match=f"channel_iim: .*{message}|channel_iim: {message}"):
        channel_iim(positional[0], **named)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("format_", FORMATS)
def test_emulated_cuda_kernel(emulated: Any, dtype: torch.dtype, format_: torch.memory_format) -> None:
    op = emulated.op("channel_iim")
    acc = torch.float64 if dtype == torch.float64 else torch.float32
    for shape in [(2, 8, 4, 4), (2, 3, 3, 5), (2, 136, 2, 2), (1, 33, 2, 2), (1, 4, 20, 16)]:
        groups = 2 if shape[0] == 2 else 1
        maps = random_maps(3, shape, dtype, format_)
        maps[2][:, :, 1, 1] = 0.1
        mean, rstd = (t.to(acc) for t in statistics(maps, groups))
        flags = [True, False, False]
        exact = [x.double() for x in maps]
        for order in emulated.orders():
            for paper in (False, True):
                expected = channel_iim_reference(exact, mean.double(), rstd.double(), flags, paper)
                actual = op(maps, mean, rstd, flags, paper)
                assert actual.dtype == acc, order
                assert_close(actual, expected, acc)


def test_emulated_cuda_kernel_splits_many_maps(emulated: Any) -> None:
    maps = random_maps(70, (1, 4, 2, 2), torch.float32, torch.contiguous_format)
    maps += random_maps(70, (1, 4, 2, 2), torch.float16, torch.channels_last)
    expected = channel_iim_reference([x.double() for x in maps], None, None, [False] * 140, False)
    assert_close(emulated.op("channel_iim")(maps, None, None, [False] * 140, False), expected, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_emulated_cuda_kernel_reads_channels_of_an_image_where_they_are(emulated: Any, dtype: torch.dtype) -> None:
    """As a convolution leaves them that stands for several: parts of one channels-last image."""
    for channels, side in ((8, 5), (3, 4), (136, 3), (4, 1)):
        image = torch.randn(4, 3 * channels + 1, side, side).to(dtype).contiguous(memory_format=torch.channels_last)
        maps = [image[:, k * channels : (k + 1) * channels] for k in range(3)] + [image[:, -channels:]]
        rows = torch.randn(2, 4, channels), torch.rand(2, 4, channels) + 0.5
        rows = tuple(row.double() if dtype == torch.float64 else row for row in rows)  # type: ignore[assignment]
        flags = [True, False, True, True]
        expected = channel_iim_reference([x.double() for x in maps], rows[0].double(), rows[1].double(), flags, False)
        for _ in emulated.orders():
            found = emulated.op("channel_iim")(maps, *rows, flags, False)
            assert_close(found, expected, found.dtype)


def test_emulated_cuda_kernel_stays_inside_its_tensors(emulated: Any) -> None:
    emulated.check_addresses(
        "channel_iim",
        """
for dtype in (torch.float32, torch.float16):
    for format_ in (torch.contiguous_format, torch.channels_last):
        for shape in ((2, 8, 4, 4), (2, 3, 3, 5), (1, 33, 2, 2), (1, 4, 20, 16), (1, 136, 2, 2)):
            x = torch.randn(shape).to(dtype).contiguous(memory_format=format_)
            s = torch.ones(1, 1, shape[1])
            ops.channel_iim([x], s, s.clone(), [True], False)
            wide = torch.randn(shape[0], 2 * shape[1], *shape[2:]).to(dtype).contiguous(memory_format=format_)
            s = torch.ones(1, 2, shape[1])
            ops.channel_iim([wide[:, : shape[1]], wide[:, shape[1] :]], s, s.clone(), [True, False], False)
""",
    )
