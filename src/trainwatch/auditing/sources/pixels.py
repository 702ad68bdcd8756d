"""Image files as arrays of one shape, by Pillow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 96  # pixels: larger images are made smaller, which the audit of what is on them can do with
PLAIN = ("L", "RGB", "RGBA", "I;16", "I", "F")  # modes that are kept where all images have them


@dataclass(frozen=True)
class Header:
    """What an image says of itself before its pixels are read: mode, and (width, height)."""

    mode: str
    size: tuple[int, int]


def header_of(path: Path) -> Header:
    """The header of an image file."""
    with Image.open(path) as image:
        return Header(image.mode, image.size)


def shape_for(headers: Iterable[Header]) -> tuple[str, tuple[int, int]]:
    """The mode and (width, height) that all are brought to: those of most images, no side above `SIDE`."""
    headers = list(headers)
    modes = {"L" if h.mode == "1" else h.mode for h in headers}
    mode = modes.pop() if len(modes) == 1 else ""
    (width, height), _ = Counter(h.size for h in headers).most_common(1)[0]
    scale = min(1.0, SIDE / max(width, height))
    return mode if mode in PLAIN else "RGB", (max(1, round(width * scale)), max(1, round(height * scale)))


def pixels_of(path: Path, mode: str, size: tuple[int, int]) -> NDArray[Any]:
    """The pixels of an image file, shape (height, width, channels)."""
    with Image.open(path) as image:
        if mode in ("L", "RGB"):
            image.draft(mode, size)  # JPEG decodes small at once
        shown = image if image.mode == mode else image.convert(mode)
        if shown.size != size:
            shown = shown.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
        array = np.asarray(shown)
    return array if array.ndim == 3 else array[..., None]
