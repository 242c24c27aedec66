"""From a picture to what a CLIP or BLIP reads: resized by Pillow's bicubic filter, square, normalised.

Pillow's filter is the one of the published scripts; torchvision's filter of tensors gives other pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    from PIL.Image import Image

MEAN = np.array([0.48145466, 0.4578275, 0.40821073], dtype=np.float32)
"""Mean of the red, green and blue channel in [0, 1] that CLIP and BLIP subtract."""
DEVIATION = np.array([0.26862954, 0.26130258, 0.27577711], dtype=np.float32)
"""What they divide by."""


def middle_square(frame: np.ndarray, *, size: int) -> Float[np.ndarray, "3 size size"]:
    """The shorter side becomes `size`, and the middle of the longer one is kept, as CLIP's processor does.

    frame: uint8[height, width, 3]; size: pixels.
    """
    height, width = frame.shape[:2]
    if height <= width:
        high, wide = size, int(size * width / height)
    else:
        high, wide = int(size * height / width), size
    top, left = (high - size) // 2, (wide - size) // 2
    picture = _resized(frame, high=high, wide=wide).crop((left, top, left + size, top + size))
    return normalised(np.asarray(picture))


def whole_in_square(frame: np.ndarray, *, size: int) -> Float[np.ndarray, "3 size size"]:
    """The longer side becomes `size`, and black bars fill the square, as the published script of HPSv2 does."""
    height, width = frame.shape[:2]
    scale = size / max(height, width)
    high, wide = max(1, round(height * scale)), max(1, round(width * scale))
    square = np.zeros((size, size, 3), dtype=np.uint8)
    top, left = (size - high) // 2, (size - wide) // 2
    square[top : top + high, left : left + wide] = np.asarray(_resized(frame, high=high, wide=wide))
    return normalised(square)


def normalised(square: np.ndarray) -> Float[np.ndarray, "3 size size"]:
    """uint8[size, size, 3] in units of the training pictures' deviation."""
    return np.ascontiguousarray(((square.astype(np.float32) / 255 - MEAN) / DEVIATION).transpose(2, 0, 1))


def _resized(frame: np.ndarray, *, high: int, wide: int) -> Image:
    from PIL import Image

    return Image.fromarray(frame).resize((wide, high), resample=Image.Resampling.BICUBIC)
