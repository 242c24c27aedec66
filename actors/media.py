"""Encoded pictures and clips: their bytes to pixels and back, their size, timing and kind of file.

What is read may have been received from anyone. The kinds of file that are opened are therefore closed lists: Pillow would
hand PostScript to Ghostscript, and FFmpeg would follow a playlist to other files and addresses.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from infra.store.tables import Image, Video

if TYPE_CHECKING:
    from av.container import InputContainer
    from PIL.ImageFile import ImageFile

MOST_PIXELS = 64_000_000
"""Pixels of one picture or frame, at most: decoded, they take three bytes each."""
ROUNDING = 0.002
"""Seconds by which time stamps may be rounded: containers of milliseconds are common."""
STARTS = {
    b"\x89PNG": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"GIF8": ".gif",
    b"BM": ".bmp",
    b"II*\x00": ".tiff",
    b"MM\x00*": ".tiff",
    b"\x1aE\xdf\xa3": ".webm",
}
CLIPS = (".mp4", ".mov", ".webm", ".mkv", ".avi")
"""Endings of files that hold more than a picture."""
PICTURE_KINDS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
"""Pillow's names of the kinds of picture that are opened."""
ISO_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
"""Types of the first box of an MP4 or MOV file; old MOV files have no `ftyp`."""


def encode_png(picture: np.ndarray) -> Image:
    """uint8[height, width, 3] as PNG; the same pixels give the same bytes."""
    from PIL import Image as Pillow

    sink = io.BytesIO()
    Pillow.fromarray(picture).save(sink, format="PNG", compress_level=6)
    return Image(bytes=sink.getvalue())


def encode_mp4(clip: np.ndarray, *, fps: float) -> Video:
    """uint8[frames, height, width, 3] as MP4: H.264, 4:2:0, constant rate factor 12, slow preset, one thread, no audio.

    The same pixels give the same bytes on the same build of PyAV: one thread, no time of creation, no name of the encoder.
    Raises ValueError for an odd height or width, which 4:2:0 cannot hold, and for a rate that is not above 0.
    """
    import av

    height, width = clip.shape[1:3]
    if height % 2 or width % 2:
        raise ValueError(f"a clip of {height}x{width} px cannot be MP4 with 4:2:0 colours; make both sides even")
    if not fps > 0:
        raise ValueError(f"a clip needs a frame rate above 0, got {fps}")
    sink = io.BytesIO()
    with av.open(sink, mode="w", format="mp4", container_options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.options = {"crf": "12", "preset": "slow", "threads": "1", "flags": "+bitexact"}
        for pixels in clip:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")))
        container.mux(stream.encode())
    return Video(bytes=sink.getvalue())


def open_picture(data: bytes) -> ImageFile:
    """An encoded picture for reading; raises an OSError unless it is one of `PICTURE_KINDS`."""
    from PIL import Image as Pillow

    return Pillow.open(io.BytesIO(data), formats=PICTURE_KINDS)


def open_clip(data: bytes) -> InputContainer:
    """An encoded clip for reading; raises ValueError unless it begins as MP4 or MOV, WebM or Matroska, or AVI files do."""
    import av

    if data[4:8] in ISO_BOXES:
        kind = "mov"
    elif data[:4] == b"\x1aE\xdf\xa3":
        kind = "matroska"
    elif data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        kind = "avi"
    else:
        raise ValueError("the file begins as none of MP4, MOV, WebM, Matroska and AVI does; convert it to one of them")
    return av.open(io.BytesIO(data), mode="r", format=kind)


@dataclass(frozen=True)
class Measures:
    """What is known of a picture or clip without decoding all of it."""

    height: int
    """Pixels."""
    width: int
    frames: int
    """1 for a picture."""
    fps: float | None
    """Frames per second; None for a picture, and for a clip that does not say."""


def decode(data: bytes, *, clip: bool) -> np.ndarray:
    """uint8[frames, height, width, 3] of an encoded picture (one frame) or clip; raises ValueError above MOST_PIXELS."""
    if not clip:
        with open_picture(data) as picture:
            _refuse_many_pixels(picture.height, picture.width)
            return np.asarray(picture.convert("RGB"))[None]
    return np.stack([frame.to_ndarray(format="rgb24") for frame, _ in _decoded(data)])


def decode_at(data: bytes, *, times: Sequence[float]) -> np.ndarray:
    """uint8[times, height, width, 3]: the frames of a clip that are shown at these ascending times.

    Times are in seconds after the first frame. Decoding stops at the last one, and no other frame is kept: a minute of
    video costs the memory of the frames that are asked for. The last frame stays where the clip has ended.
    """
    found: list[np.ndarray] = []
    shown = None
    for frame, at in _decoded(data):
        while shown is not None and len(found) < len(times) and times[len(found)] < at - ROUNDING:
            found.append(shown.to_ndarray(format="rgb24"))
        if len(found) == len(times):
            break
        shown = frame
    if shown is None:
        raise ValueError("the clip has no frame")
    found += [shown.to_ndarray(format="rgb24")] * (len(times) - len(found))
    return np.stack(found)


def _decoded(data: bytes) -> Iterator[tuple[Any, float]]:
    """Frames of a clip, each with its time in seconds after the first one."""
    with open_clip(data) as container:
        stream = container.streams.video[0]
        rate = float(stream.average_rate or 0) or 1.0
        first: float | None = None
        for number, frame in enumerate(container.decode(video=0)):
            _refuse_many_pixels(frame.height, frame.width)
            at = number / rate if frame.time is None else frame.time
            first = at if first is None else first
            yield frame, at - first


def _refuse_many_pixels(height: int, width: int) -> None:
    if height * width > MOST_PIXELS:
        raise ValueError(
            f"{width} x {height} are {height * width / 1e6:.0f} million pixels; at most {MOST_PIXELS // 10**6} million are "
            "decoded: make it smaller"
        )


def ending(data: bytes) -> str:
    """The ending of a file's name, by how the file begins; `.data` for what is not known."""
    if data[:4] == b"RIFF":
        return {b"WEBP": ".webp", b"AVI ": ".avi"}.get(data[8:12], ".data")
    if data[4:8] == b"ftyp":
        return ".avif" if data[8:12] == b"avif" else ".mp4"
    return next((name for start, name in STARTS.items() if data.startswith(start)), ".data")


def is_clip(data: bytes) -> bool:
    """Whether the file begins as a clip does; anything else is taken for a picture."""
    return ending(data) in CLIPS


def measures(data: bytes, *, clip: bool) -> Measures:
    """Size, frames and rate; raises where a picture, or a clip's first frame, does not decode or has too many pixels."""
    if clip:
        frame, _ = next(_decoded(data))
        fps, frames = clip_timing(data)
        return Measures(frame.height, frame.width, frames, fps or None)
    with open_picture(data) as picture:
        _refuse_many_pixels(picture.height, picture.width)
        picture.load()
        return Measures(picture.height, picture.width, 1, None)


def clip_timing(data: bytes) -> tuple[float, int]:
    """Frames per second and number of frames of a clip."""
    with open_clip(data) as container:
        stream = container.streams.video[0]
        rate = float(stream.average_rate or 0)
        return rate, stream.frames or sum(1 for _ in container.decode(video=0))
