"""Shards as tests need them."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

Files = list[tuple[str, bytes]]


def picture(value: int, kind: str = "png") -> bytes:
    from PIL import Image

    content = io.BytesIO()
    Image.effect_noise((10, 8), 20 + value).convert("RGB").save(content, kind)
    return content.getvalue()


def tar(path: Path, files: Files, **how: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **how) as archive:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path
