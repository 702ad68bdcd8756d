"""Samples as small pictures in PNG."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 64  # pixels
LOOKED_AT = 256  # images, for the range of grey
CHANNELS = (1, 3, 4)


class Thumbnails:
    """Pictures of some images, all on one scale of brightness.

    Args:
        images: Shape (n, height, width, channels); bytes are shown as they are, other numbers from their 1 % to
            their 99 % quantile.
    """

    def __init__(self, images: NDArray[Any]) -> None:
        self._images = images
        self._low, self._high = 0.0, 255.0
        if images.dtype != np.uint8:
            some = images[np.linspace(0, len(images) - 1, min(LOOKED_AT, len(images))).astype(int)].astype(np.float64)
            finite = some[np.isfinite(some)]
            self._low, self._high = np.quantile(finite, [0.01, 0.99]) if len(finite) else (0.0, 1.0)

    def png(self, row: int) -> str:
        """One image as a PNG in base64; what is not finite is black."""
        image = self._images[row]
        if image.shape[2] not in CHANNELS:
            image = image[..., :1]
        shade = (image.astype(np.float64) - self._low) / max(self._high - self._low, 1e-12) * 255
        pixels = np.nan_to_num(shade, nan=0.0, posinf=0.0, neginf=0.0).clip(0, 255).astype(np.uint8)
        picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        picture.thumbnail((SIDE, SIDE))
        file = io.BytesIO()
        picture.save(file, "PNG", optimize=True)
        return base64.b64encode(file.getvalue()).decode()
