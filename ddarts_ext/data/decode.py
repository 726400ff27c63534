"""One picture, a file or a part of one: what its header says, and its pixels as uint8 whatever its mode, depth and
orientation.

Everything that is wrong with a file is an :class:`UnreadableImage` that names it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddarts_ext.data.member import Member

# By content, not by name; Pillow knows others, some of which run programs (EPS) or are no pictures.
FORMATS = ("PNG", "JPEG", "BMP", "DIB", "GIF", "PPM", "TIFF", "WEBP")
_GREY_MODES = ("1", "L", "LA", "La", "I", "F")
# Tags of TIFF and EXIF.
_ORIENTATION, _BITS_PER_SAMPLE, _WIDTH, _HEIGHT = 274, 258, 256, 257


class UnreadableImage(ValueError):
    """A picture file that is missing, broken, too large, or of a kind whose values have no known range."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says before its pixels are decoded. size: (height, width) as it is meant to be looked at."""

    size: tuple[int, int]
    colour: bool


def read_header(path: Path | Member) -> Header:
    """Size and colour of a picture. Raises :class:`UnreadableImage`."""
    with _opened(path) as image:
        width, height = image.size
        # Pillow turns TIFF files itself, newer releases their size too.
        turned = image.format == "TIFF" and image.size != (image.tag_v2[_WIDTH], image.tag_v2[_HEIGHT])
        if _orientation(image) >= 5 and not turned:
            width, height = height, width
        return Header((height, width), not _is_grey(image))


def read_picture(path: Path | Member, size: tuple[int, int], channels: int) -> Tensor:
    """Pixels as uint8 [channels, height, width], scaled to cover ``size`` and cut to it in the middle.

    channels: 1 for grey, 3 for colour. 16 bits become the upper 8, floats from 0 to 1 are multiplied by 255, what is
    transparent is laid over white, the orientation that a camera noted is applied; of several frames the first is read.
    Raises :class:`UnreadableImage`.
    """
    with _opened(path) as image:
        # A JPEG much larger than what is asked for is decoded at 1/2, 1/4 or 1/8 of its size, which takes a part of the
        # time; with twice the pixels that are needed left for the filter that scales it.
        image.draft(None, (2 * max(size), 2 * max(size)))
        image.load()
        return picture_pixels(image, size, channels)


def picture_pixels(image: Any, size: tuple[int, int], channels: int) -> Tensor:
    """What :func:`read_picture` gives of a picture that Pillow has read, or made."""
    from PIL import ImageOps

    height, width = size
    picture = _flattened(_eight_bits(_upright(image)), "L" if channels == 1 else "RGB")
    if picture.size != (width, height):
        picture = ImageOps.fit(picture, (width, height))
    pixels = torch.from_numpy(np.array(picture, dtype=np.uint8))
    return pixels.reshape(height, width, channels).permute(2, 0, 1).contiguous()


def pillow() -> Any:
    """Pillow's module Image. Raises ValueError where it is not installed."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ValueError(f"data: image folders need the package Pillow (pip install pillow): {error}") from error
    return Image


@contextmanager
def _opened(path: Path | Member) -> Iterator[Any]:
    image_module = pillow()
    whole = path.shard if isinstance(path, Member) else path
    try:
        if not stat.S_ISREG(os.stat(whole).st_mode):  # a pipe would be waited for
            folder = os.path.isdir(whole)
            raise ValueError("it is a folder: give its files" if folder else "it is no regular file")
        # A file and no name: Pillow maps files it opens itself into memory, TIFF ones that are turned wrongly.
        with whole.open("rb") as file:
            source = path.read_from(file) if isinstance(path, Member) else file
            with image_module.open(source, formats=FORMATS) as image:
                yield image
    except image_module.UnidentifiedImageError as error:
        reason = f"it is none of {', '.join(FORMATS)}"
        raise UnreadableImage(f"data: {path} is not an image that can be read: {reason}") from error
    except Exception as error:
        # Pillow's readers raise what their parsing meets: SyntaxError, struct.error, EOFError, its own errors for
        # pixel bombs (above twice Image.MAX_IMAGE_PIXELS), MemoryError.
        reason = shorten(str(error), 200) or type(error).__name__
        raise UnreadableImage(f"data: {path} is not an image that can be read: {reason}") from error


def _orientation(image: Any) -> int:
    """EXIF orientation, 1 where there is none or it cannot be understood (then viewers show the picture as it is)."""
    if image.format == "PNG" and "exif" not in image.info and "Raw profile type exif" not in image.info:
        return 1  # getexif would decode the whole picture to look behind it
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:
        return 1


def _upright(image: Any) -> Any:
    from PIL import ImageOps

    return ImageOps.exif_transpose(image) if 2 <= _orientation(image) <= 8 else image


def _is_grey(image: Any) -> bool:
    if image.mode == "P":
        palette = np.array(image.getpalette() or [0], dtype=np.uint8)
        colours = palette[: len(palette) // 3 * 3].reshape(-1, 3)
        return bool((colours == colours[:, :1]).all())
    return image.mode in _GREY_MODES or image.mode.startswith("I;16")


def _eight_bits(image: Any) -> Any:
    """The same picture with 8 bits a value: scaled by the range of its type, so that all files are scaled alike."""
    if image.mode == "F":
        values = np.asarray(image)
        low, high = float(values.min()), float(values.max())
        if not (low >= 0 and high <= 1):
            raise ValueError(f"its floats must lie between 0 and 1, got {low:g} to {high:g}")
        return pillow().fromarray(np.rint(values * 255).astype(np.uint8))
    if image.mode != "I" and not image.mode.startswith("I;16"):
        return image
    values = np.asarray(image)
    bits = 16
    if image.format == "TIFF" or image.mode == "I":
        bits = _declared_bits(image)
    if int(values.min()) < 0 or int(values.max()) >> bits:
        raise ValueError(f"its values must fit {bits} bits, got {values.min()} to {values.max()}")
    eight = (values >> (bits - 8)).astype(np.uint8)
    if "transparency" in image.info:
        eight[values == image.info["transparency"]] = 255
    return pillow().fromarray(eight)


def _declared_bits(image: Any) -> int:
    """Bits of a grey picture's values. A 32-bit file says nothing of the range that its values use: refused."""
    if image.format == "TIFF":
        bits = image.tag_v2.get(_BITS_PER_SAMPLE, (16,))[0]
        if image.mode == "I":
            raise ValueError(f"it has signed or {bits}-bit whole numbers of unknown range; save it with 8 or 16 bits")
        return int(bits)
    return 16  # PNG and PPM come as mode I with values of 16 bits


def _flattened(image: Any, mode: str) -> Any:
    """L or RGB, what is transparent laid over white."""
    if image.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = pillow().new("RGBA", image.size, "white")
        image = pillow().alpha_composite(white, image)
    return image.convert(mode)
