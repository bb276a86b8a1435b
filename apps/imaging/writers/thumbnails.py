"""Small pictures for the page."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from featherweight.core.arrays import GreyImage

SIDE = 96
QUALITY = 78


def render_thumbnail(pixels: GreyImage) -> bytes:
    """A grey JPEG (about 2 kB, no metadata) of at most 96 x 96 from pixels [height, width] in 0..1."""
    image = Image.fromarray((np.clip(pixels, 0, 1) * 255 + 0.5).astype(np.uint8))
    image.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    content = io.BytesIO()
    image.save(content, "JPEG", quality=QUALITY)
    return content.getvalue()
