"""Shapes and lengths that pairs are brought to: a property of the pair, since both members share noise and time.

Two videos of different models differ in size, length and frame rate more often than not (Liu et al., 2025, table 1). A
pair takes the bucket whose aspect ratio is nearest to the geometric mean of its members', and the longest allowed length
that both members fill; every training batch is of one shape.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import numpy as np
from jaxtyping import Float, Int
from pydantic import Field

from infra.config import Config

AT_ONCE = 50_000  # aspect ratios compared with all buckets at a time


@dataclass(frozen=True)
class Placement:
    """A picture resized to `height` x `width` pixels and then cropped, `top` pixels from above and `left` from the left."""

    height: int
    width: int
    top: int
    left: int


class Buckets(Config):
    """Shapes that pictures and clips are brought to; a batch is of one shape."""

    area: int = Field(512 * 512, ge=64)
    """Pixels of a picture or frame, approximately; without effect where pairs keep their own shape."""
    multiple: int = Field(64, ge=1)
    """Height and width are multiples of this."""
    ratio: float = Field(2.0, ge=1)
    """Longest over shortest side, at most; 1 for squares."""
    own: bool = False
    """Keep the pair's own shape, cropped to multiples: nothing is resized where both members have one shape (ViPO)."""
    frames: tuple[Annotated[int, Field(ge=1)], ...] = (1,)
    """Lengths of clips, each 4k + 1 for a VAE that compresses time by four; a pair takes the longest that both fill."""
    rate: float | None = Field(None, gt=0)
    """Frames per second that clips are resampled to by their time stamps; None: every clip keeps its own."""

    def shapes(self) -> list[tuple[int, int]]:
        """Every (height, width), by aspect ratio."""
        side = math.sqrt(self.area)
        found = set()
        for height in range(self.multiple, int(side * math.sqrt(self.ratio)) + self.multiple, self.multiple):
            width = max(self.multiple, round(self.area / height / self.multiple) * self.multiple)
            if max(height, width) <= self.ratio * min(height, width) + 1e-9:
                found |= {(height, width), (width, height)}
        return sorted(found, key=lambda shape: shape[0] / shape[1]) or [(self.multiple, self.multiple)]

    @cached_property
    def only(self) -> tuple[int, int, int] | None:
        """The one (frames, height, width) that everything comes to, where there is one: then no size has to be known."""
        shapes = self.shapes()
        return (1, *shapes[0]) if len(shapes) == 1 and not self.own and self.frames == (1,) else None

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """The (height, width) of a pair both of whose members have this size."""
        size = np.array([[height, width]])
        found = self.shapes_of(size, size)[0]
        return int(found[0]), int(found[1])

    def shapes_of(
        self, first: Int[np.ndarray, "pairs 2"], second: Int[np.ndarray, "pairs 2"]
    ) -> Int[np.ndarray, "pairs 2"]:
        """(height, width) of every pair of sizes: the aspect ratio nearest to their geometric mean, on a log scale.

        Among equally near buckets the one of nearest area is taken. A pair's own shape is the geometric mean of heights and
        of widths, rounded down to multiples.
        """
        if self.own:
            mean = np.sqrt(first.astype(np.float64) * second)
            return np.maximum(np.floor(mean / self.multiple + 1e-9), 1).astype(np.int64) * self.multiple
        wanted = 0.5 * (np.log(first[:, 0] / first[:, 1]) + np.log(second[:, 0] / second[:, 1]))
        ratios, place = np.unique(wanted, return_inverse=True)
        shapes = np.array(self.shapes())
        given = np.log(shapes[:, 0] / shapes[:, 1])
        # Areas decide between equal distances only: they are far below the ninth digit, to which distances are rounded.
        areas = 1e-12 * np.abs(np.log(shapes[:, 0] * shapes[:, 1] / self.area))
        nearest = np.empty(len(ratios), dtype=np.int64)
        for start in range(0, len(ratios), AT_ONCE):
            off = np.abs(ratios[start : start + AT_ONCE, None] - given)
            nearest[start : start + AT_ONCE] = np.argmin(np.round(off, 9) + areas, axis=1)
        return shapes[nearest[place]]

    def shown(self, frames: Int[np.ndarray, " clips"], fps: Float[np.ndarray, " clips"]) -> Int[np.ndarray, " clips"]:
        """Frames that clips of so many frames at these rates (NaN: unknown) have at this bucket's rate."""
        if self.rate is None:
            return frames
        resampled = np.ceil(frames * self.rate / fps - 1e-6)
        return np.where(np.isnan(fps), frames, resampled).astype(np.int64)

    def lengths(self, frames: Int[np.ndarray, " pairs"]) -> Int[np.ndarray, " pairs"]:
        """The longest allowed length that so many frames fill; 0 where they fill none."""
        allowed = np.array([0, *sorted(self.frames)])
        return allowed[np.searchsorted(allowed, frames, side="right") - 1]

    def times(self, length: int, *, fps: float | None) -> list[float]:
        """Seconds after the first frame at which a clip's frames are taken."""
        rate = self.rate if self.rate is not None and fps is not None else fps or 1.0
        return [number / rate for number in range(length)]

    def fit(self, pixels: np.ndarray, *, height: int, width: int) -> np.ndarray:
        """uint8[f, h, w, 3] to a shape: resized to cover it (bicubic) and cropped in the middle.

        A pair that keeps its own shape is only cropped where it exceeds it by less than a multiple.
        """
        from PIL import Image as Pillow

        given = pixels.shape[1:3]
        if given == (height, width):
            return pixels
        place = self.placement(*given, height=height, width=width)
        if given != (place.height, place.width):
            size = (place.width, place.height)
            frames = [np.asarray(Pillow.fromarray(frame).resize(size, Pillow.Resampling.BICUBIC)) for frame in pixels]
            pixels = np.stack(frames)
        return np.ascontiguousarray(pixels[:, place.top : place.top + height, place.left : place.left + width])

    def placement(self, given_height: int, given_width: int, *, height: int, width: int) -> Placement:
        """How a picture of `given_height` x `given_width` pixels comes to `height` x `width`."""
        size = (given_height, given_width)
        if not (self.own and 0 <= given_height - height < self.multiple and 0 <= given_width - width < self.multiple):
            scale = max(height / given_height, width / given_width)
            size = (max(height, round(given_height * scale)), max(width, round(given_width * scale)))
        return Placement(*size, top=(size[0] - height) // 2, left=(size[1] - width) // 2)
