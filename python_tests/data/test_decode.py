"""Pixels of every mode and depth that people save, as uint8 that says what the file says."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddarts_ext.data import UnreadableImage
from ddarts_ext.data.decode import read_header, read_picture

Image = pytest.importorskip("PIL.Image")


def pixels(path: Path, channels: int, size: tuple[int, int] | None = None) -> Any:
    """[H, W, C] as numpy, at the size the header says."""
    return read_picture(path, size or read_header(path).size, channels).permute(1, 2, 0).numpy()


def png(path: Path, width: int, height: int, depth: int, kind: int, rows: bytes, **chunks: bytes) -> Path:
    """A PNG written by hand, for what Pillow does not write. rows: with a filter byte before each."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))]
    parts += [chunk(name.encode(), content) for name, content in chunks.items()]
    parts += [chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


GREY16 = np.array([[0, 255, 256, 8000], [28000, 32768, 65279, 65535]], np.uint16)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_grey_of_16_bits_is_scaled_by_its_type(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "a.pgm":
        path.write_bytes(b"P5 4 2 65535\n" + GREY16.astype(">u2").tobytes())
    else:
        Image.fromarray(GREY16).save(path)
    assert not read_header(path).colour
    assert np.array_equal(pixels(path, 1)[..., 0], GREY16 >> 8)
    assert np.array_equal(pixels(path, 3), np.repeat((GREY16 >> 8)[..., None], 3, 2))


def test_big_endian_and_12_bit_tiff(tmp_path: Path) -> None:
    def tiff(bits: int, content: bytes, order: str) -> bytes:
        tags = [(256, 4), (257, 2), (258, bits), (259, 1), (262, 1), (273, 122), (277, 1), (278, 2)]
        entries = [struct.pack(f"{order}HHIHH", tag, 3, 1, value, 0) for tag, value in tags]
        entries.append(struct.pack(f"{order}HHII", 279, 4, 1, len(content)))
        start = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
        return start + struct.pack(f"{order}H", 9) + b"".join(entries) + bytes(4) + content

    big = tmp_path / "big.tif"
    big.write_bytes(tiff(16, GREY16.astype(">u2").tobytes(), ">"))
    with Image.open(big) as image:
        assert image.mode == "I;16B"
    assert np.array_equal(pixels(big, 1)[..., 0], GREY16 >> 8)
    twelve = np.array([[0, 15, 16, 500], [1000, 2048, 4094, 4095]])
    packed = b"".join(bytes((a >> 4, (a & 15) << 4 | b >> 8, b & 255)) for a, b in twelve.reshape(-1, 2).tolist())
    path = tmp_path / "twelve.tif"
    path.write_bytes(tiff(12, packed, "<"))
    assert np.array_equal(pixels(path, 1)[..., 0], twelve >> 4)


def test_colour_of_16_bits(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.uint32).reshape(2, 4, 3) * 2800
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    path = png(tmp_path / "a.png", 4, 2, 16, 2, rows)
    assert read_header(path).colour
    assert np.array_equal(pixels(path, 3), values >> 8)


def test_floats_from_0_to_1(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(np.array([[0, 0.25], [0.5, 1]], np.float32)).save(path)
    assert not read_header(path).colour
    assert pixels(path, 1)[..., 0].tolist() == [[0, 64], [128, 255]]
    for values, said in (([0, 1.5], "got 0 to 1.5"), ([-1, 1], "got -1 to 1"), ([0, np.nan], "got nan to nan")):
        Image.fromarray(np.array([values], np.float32)).save(path)
        with pytest.raises(UnreadableImage, match=rf"{path.name} .*floats must lie between 0 and 1, {said}"):
            pixels(path, 1)


def test_numbers_of_unknown_range_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(np.array([[0, 300]], np.int32)).save(path)
    with pytest.raises(UnreadableImage, match=r"a\.tif .*whole numbers of unknown range"):
        pixels(path, 1)


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
def test_what_is_transparent_lies_over_white(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.png"
    if mode == "P":
        image = Image.new("P", (3, 1))
        image.putpalette([0, 0, 0, 200, 0, 0, 9, 9, 9])
        image.putdata([0, 1, 2])
        image.save(path, transparency=bytes((0, 255, 255)))
        expected = [[255, 255, 255], [200, 0, 0], [9, 9, 9]]
    else:
        grey = np.array([[0, 100, 100]], np.uint8)
        alpha = np.array([[0, 255, 51]], np.uint8)
        channels = [grey] * (1 if mode == "LA" else 3) + [alpha]
        Image.fromarray(np.stack(channels, 2), mode).save(path)
        expected = [[255] * 3, [100] * 3, [224] * 3]  # 0.2 * 100 + 0.8 * 255
    assert pixels(path, 3)[0].tolist() == expected
    assert read_header(path).colour == (mode != "LA")
    if mode == "LA":
        assert pixels(path, 1)[0, :, 0].tolist() == [255, 100, 224]


@pytest.mark.parametrize(("depth", "value"), [(8, 7), (16, 7)])
def test_a_transparent_grey_level(tmp_path: Path, depth: int, value: int) -> None:
    levels = np.array([[7, 200]], np.uint8) if depth == 8 else np.array([[7, 200 << 8]], ">u2")
    path = png(tmp_path / "a.png", 2, 1, depth, 0, b"\0" + levels.tobytes(), tRNS=struct.pack(">H", value))
    assert pixels(path, 1)[0, :, 0].tolist() == [255, 200]


def test_palettes(tmp_path: Path) -> None:
    grey, colour = tmp_path / "grey.png", tmp_path / "colour.gif"
    image = Image.new("P", (2, 1))
    image.putdata([0, 1])
    image.putpalette([10, 10, 10, 90, 90, 90])
    image.save(grey)
    image.putpalette([10, 20, 30, 90, 80, 70])
    image.save(colour)
    assert (read_header(grey).colour, read_header(colour).colour) == (False, True)
    assert pixels(grey, 1)[0, :, 0].tolist() == [10, 90]
    assert pixels(colour, 3)[0].tolist() == [[10, 20, 30], [90, 80, 70]]


@pytest.mark.parametrize(("bits", "levels"), [(1, 2), (2, 4), (4, 16)])
def test_few_bits_span_black_to_white(tmp_path: Path, bits: int, levels: int) -> None:
    path = png(tmp_path / "a.png", 2, 1, bits, 0, bytes((0, (levels - 1) << (8 - 2 * bits))))
    assert pixels(path, 1)[0, :, 0].tolist() == [0, 255]


def test_cmyk(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(np.array([[[0, 0, 0, 0], [0, 255, 255, 0], [0, 0, 0, 255]]], np.uint8), "CMYK").save(path)
    assert read_header(path).colour
    assert pixels(path, 3)[0].tolist() == [[255, 255, 255], [255, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("orientation", range(9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp", "deep.png"])
def test_the_camera_is_turned_back(tmp_path: Path, orientation: int, name: str) -> None:
    upright = np.zeros((16, 24), np.uint8)
    upright[:8, :8], upright[:8, 8:16], upright[8:, 16:] = 250, 170, 90
    turns = {2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.T}
    turns |= {6: np.rot90(upright), 7: upright.T[::-1, ::-1], 8: np.rot90(upright, -1)}
    stored = np.ascontiguousarray(turns.get(orientation, upright))
    image = Image.fromarray(stored.astype(np.uint16) << 8 if name == "deep.png" else stored)
    exif = Image.Exif()
    exif[274] = orientation
    options = {"a.jpg": {"quality": 100}, "a.webp": {"lossless": True}}.get(name, {})
    image.save(tmp_path / name, exif=exif, **options)
    assert read_header(tmp_path / name).size == (16, 24)
    channels = 3 if name == "a.webp" else 1
    difference = pixels(tmp_path / name, channels).astype(int) - upright[..., None]
    assert abs(difference).max() <= 2


@pytest.mark.filterwarnings("ignore:.*EXIF data")
def test_orientation_that_makes_no_sense_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    for exif in (b"Exif\0\0MM\0*\0\0", b"Exif\0\0" + os.urandom(30), b"Exif\0\0II*\0\xff\xff\xff\xff"):
        Image.new("L", (3, 2)).save(path, exif=exif)
        assert read_header(path).size == (2, 3)
        assert pixels(path, 1).shape == (2, 3, 1)


def test_scaled_to_cover_and_cut_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    wide = np.zeros((8, 24), np.uint8)
    wide[:, 8:16] = 200
    Image.fromarray(wide).save(path)
    assert (pixels(path, 1, (8, 8)) == 200).all()
    assert (pixels(path, 1, (4, 4))[:, 1:3] > 190).all()
    assert pixels(path, 1, (16, 4)).shape == (16, 4, 1)


def test_a_strip_is_not_scaled_as_a_whole(tmp_path: Path) -> None:
    """Scaled to 224 rows first, it would be 26,880,000 x 224."""
    Image.new("L", (60_000, 1), 9).save(tmp_path / "a.png")
    assert (pixels(tmp_path / "a.png", 1, (224, 224)) == 9).all()


def test_pixel_bombs_are_refused(tmp_path: Path) -> None:
    path = png(tmp_path / "bomb.png", 60_000, 60_000, 8, 0, b"")
    for read in (read_header, lambda file: read_picture(file, (8, 8), 1)):
        with pytest.raises(UnreadableImage, match=r"bomb\.png .*pixels"):
            read(path)


def test_files_that_are_no_picture(tmp_path: Path) -> None:
    good = io.BytesIO()
    Image.fromarray(np.random.RandomState(0).randint(0, 256, (40, 40, 3), dtype=np.uint8)).save(good, "PNG")
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    for content in (b"", b"no image", postscript, b"\x89PNG\r\n\x1a\n", b"GIF89a", good.getvalue()[:300]):
        path = tmp_path / "a.png"
        path.write_bytes(content)
        with pytest.raises(UnreadableImage, match=r"data: .*a\.png is not an image that can be read") as raised:
            pixels(path, 3)
        assert "\n" not in str(raised.value)
    with pytest.raises(UnreadableImage, match="No such file"):
        read_header(tmp_path / "none.png")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(UnreadableImage, match="no regular file"):
        read_header(tmp_path / "pipe.png")


def test_of_several_frames_the_first(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 3), colour) for colour in ("red", "blue")]
    for name in ("a.gif", "a.tif", "a.webp"):
        options = {"lossless": True} if name == "a.webp" else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
        assert (pixels(tmp_path / name, 3) == (255, 0, 0)).all()


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(("side", "scale"), [(32, 8), (100, 4), (260, 2), (600, 1)])
def test_a_large_jpeg_is_decoded_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int, scale: int, orientation: int
) -> None:
    """At 1/8 of its size or more, never below twice what is asked for, and with the same pixels but for rounding."""
    from PIL import JpegImagePlugin

    x, y = np.meshgrid(np.linspace(0, 6, 1600), np.linspace(0, 5, 1200))
    waves = np.stack([np.sin(x), np.cos(y), np.sin(x * y / 4)], -1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray((127 * (1 + waves)).astype(np.uint8)).save(tmp_path / "large.jpg", quality=95, exif=exif)
    sizes = []
    draft = JpegImagePlugin.JpegImageFile.draft

    def watched(image: Any, *given: Any) -> Any:
        found = draft(image, *given)
        sizes.append(image.size)
        return found

    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "draft", watched)
    found = read_picture(tmp_path / "large.jpg", (side, side), 3).float()
    assert sizes == [(1600 // scale, 1200 // scale)]
    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "draft", lambda *given: None)
    whole = read_picture(tmp_path / "large.jpg", (side, side), 3).float()
    assert (found - whole).abs().mean() < 1
