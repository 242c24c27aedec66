"""Which pictures and clips the gallery shows, and how they travel inside the page."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from actors.media import clip_timing, decode, encode_mp4, open_picture
from infra.store.tables import Image, Video

LARGEST = 192  # longest edge, pixels; larger pictures are embedded as reduced JPEG
LARGEST_CLIP = 256  # longest edge of an embedded clip, pixels
SMALL = 96  # up to here, enlarged with hard pixel edges
SMALLEST_DRAWN = 96  # CSS pixels that the longest edge takes up at least
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Shown:
    """A picture or clip as a data: URI; empty where its bytes are neither."""

    uri: str
    width: int
    height: int
    plays: bool = False
    """Whether it is a clip."""

    @property
    def pixelated(self) -> bool:
        """Whether it is so small that its pixels should be seen."""
        return max(self.width, self.height) <= SMALL

    @property
    def enlargement(self) -> int:
        """Whole number by which it is drawn larger, so that every pixel stays a square."""
        return max(1, -(-SMALLEST_DRAWN // max(self.width, self.height, 1)))

    @property
    def drawn_width(self) -> int:
        """CSS pixels."""
        return self.width * self.enlargement

    @property
    def drawn_height(self) -> int:
        """CSS pixels."""
        return self.height * self.enlargement


def order_of(text: str, sample: int) -> str:
    """Where a caption's picture stands in the draw: a hash of caption and sample index alone: every run shows the same."""
    return hashlib.sha256(f"gallery\x1f{text}\x1f{sample}".encode()).hexdigest()


def draw(candidates: Iterable[tuple[str, str, str, int]], *, per_task: int) -> list[str]:
    """Ids of the first `per_task` of each task by hash, from (id, text, task, sample); outcomes play no part."""
    by_task: dict[str, list[tuple[str, str]]] = {}
    for name, text, task, sample in candidates:
        by_task.setdefault(task, []).append((order_of(text, sample), name))
    return [name for task in sorted(by_task) for _, name in sorted(by_task[task])[:per_task]]


def embed(image: Image | Video) -> Shown:
    """A data: URI: the picture's own bytes where it is a small PNG, else a reduced copy; a clip as reduced MP4."""
    from PIL import Image as Pillow

    if isinstance(image, Video):
        return _embedded_clip(image)

    try:
        with open_picture(image.bytes) as picture:
            picture.load()
            width, height = picture.size
            if image.bytes.startswith(PNG) and max(width, height) <= LARGEST:
                return Shown(_uri("image/png", image.bytes), width, height)
            reduced = picture.convert("RGB")
    except (OSError, SyntaxError, ValueError, Pillow.DecompressionBombError):
        return Shown("", 0, 0)
    reduced.thumbnail((LARGEST, LARGEST))
    sink = io.BytesIO()
    reduced.save(sink, "JPEG", quality=80)
    return Shown(_uri("image/jpeg", sink.getvalue()), *reduced.size)


def _embedded_clip(clip: Video) -> Shown:
    """All frames at the clip's own rate, reduced to LARGEST_CLIP; both sides even, as 4:2:0 colours want them."""
    from PIL import Image as Pillow

    try:
        frames, fps = decode(clip.bytes, clip=True), clip_timing(clip.bytes)[0]
        height, width = frames.shape[1:3]
        scale = min(1.0, LARGEST_CLIP / max(height, width))
        size = (_even(width * scale), _even(height * scale))
        reduced = [np.asarray(Pillow.fromarray(frame).resize(size, Pillow.Resampling.LANCZOS)) for frame in frames]
        small = encode_mp4(np.stack(reduced), fps=fps or 8.0)
    except (OSError, ValueError, IndexError):
        return Shown("", 0, 0)
    return Shown(_uri("video/mp4", small.bytes), *size, plays=True)


def _even(side: float) -> int:
    return max(2, round(side / 2) * 2)


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
