"""The frames of a sample: a picture has one, a clip is scored by the mean of some that are evenly spaced."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Float

from actors.media import clip_timing, decode, decode_at
from pipelines.models.scorers.scorer import Sample


def frames_of(sample: Sample, *, most: int) -> Iterator[np.ndarray]:
    """uint8[height, width, 3] of a picture, or of at most `most` frames of a clip, the first and the last among them.

    Raises OSError or ValueError for a file that cannot be read.
    """
    if sample.medium == "image":
        yield from decode(sample.media, clip=False)
        return
    fps, frames = clip_timing(sample.media)
    if not frames:
        raise ValueError("the clip has no frame")
    places = np.unique(np.linspace(0, frames - 1, min(most, frames)).round().astype(int))
    yield from decode_at(sample.media, times=[place / (fps or 1.0) for place in places.tolist()])


def readable_frames(samples: Sequence[Sample], *, most: int) -> Iterator[tuple[int, np.ndarray]]:
    """(place of the sample, frame) of every sample that can be read, in order; one sample is decoded at a time."""
    for place, sample in enumerate(samples):
        try:
            frames = list(frames_of(sample, most=most))
        except (OSError, ValueError):  # what Pillow and PyAV raise for a file that they cannot read
            continue
        for frame in frames:
            yield place, frame


def mean_over_frames(
    samples: Sequence[Sample],
    *,
    frames: int,
    measure: Callable[[np.ndarray, int], Sequence[float]],
    dimensions: int,
) -> Float[np.ndarray, "samples dimensions"]:
    """The mean over a sample's frames of measure(frame, place of the sample); NaN where the file cannot be read."""
    total, count = np.zeros((len(samples), dimensions)), np.zeros(len(samples))
    for place, frame in readable_frames(samples, most=frames):
        total[place] += measure(frame, place)
        count[place] += 1
    return means(total, count)


def means(total: np.ndarray, count: np.ndarray) -> Float[np.ndarray, "samples dimensions"]:
    """total / count by row; NaN where nothing was counted."""
    return np.divide(total, count[:, None], out=np.full_like(total, np.nan), where=count[:, None] > 0)
