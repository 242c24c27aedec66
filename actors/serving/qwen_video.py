"""The video input of Qwen2-VL's kind of processor without torchvision, which few machines have.

transformers' own video processors need torchvision. Qwen2-VL's does to every frame what the same
processor's picture input does, and then puts two consecutive frames into one patch where a picture is repeated; an odd last
frame is repeated. So the frames go through the picture processor here. Resizing is Pillow's, whose bicubic filter may
differ from torchvision's by a rounding of the pixel. A video's limits of pixels are those of `video_preprocessor_config`,
where the folder has one, or of the class (128 to 768 tokens of 28 x 28 pixels per frame).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from infra.config import ConfigError

MODELS = ("qwen2_vl",)
"""Models whose videos are prepared so."""
SIZE = {"shortest_edge": 128 * 28 * 28, "longest_edge": 768 * 28 * 28}
"""Fewest and most pixels of a frame where the folder does not say; those of transformers' class."""


class QwenVideoInput:
    """Stands in the place of a processor's `video_processor`."""

    model_input_names = ("pixel_values_videos", "video_grid_thw")

    def __init__(self, pictures: Any, *, size: dict[str, int]) -> None:
        self.pictures = pictures
        self.size = size
        self.merge_size = pictures.merge_size
        self.temporal_patch_size = pictures.temporal_patch_size

    @classmethod
    def of(cls, folder: Path, pictures: Any) -> QwenVideoInput:
        """The folder's video input; ConfigError where frames have other patches than pictures."""
        found: dict[str, Any] = {}
        for name in ("video_preprocessor_config.json", "preprocessor_config.json", "processor_config.json"):
            file = folder / name
            if file.is_file():
                read = json.loads(file.read_text())
                found = read.get("video_processor", {}) if name == "processor_config.json" else read
                if found:
                    break
        for name in ("patch_size", "merge_size", "temporal_patch_size"):
            if name in found and found[name] != getattr(pictures, name):
                raise ConfigError(
                    f"{folder}: {name} of videos is not that of pictures; install torchvision for video input"
                )
        size = dict(found.get("size") or SIZE)
        size |= {edge: found[name] for edge, name in _EDGES.items() if found.get(name)}
        return cls(pictures, size={edge: int(size.get(edge) or SIZE[edge]) for edge in SIZE})

    def __call__(self, videos: Sequence[Any], **options: Any) -> dict[str, Any]:
        """videos: for each text its videos, or videos; each uint8[frames, height, width, 3], all of them shown."""
        del options  # metadata, and that nothing is sampled: the frames were chosen before
        patches: list[np.ndarray] = []
        grids: list[list[int]] = []
        for video in _flat(videos):
            prepared = self.pictures(list(video), size=self.size, return_tensors="np")
            (_, high, wide), *rest = prepared["image_grid_thw"].tolist()
            if any(grid != [1, high, wide] for grid in rest):
                raise ValueError("the frames of one clip have different sizes")
            made, steps = self._joined(prepared["pixel_values"], frames=1 + len(rest))
            patches.append(made)
            grids.append([steps, high, wide])
        return {"pixel_values_videos": np.concatenate(patches), "video_grid_thw": np.array(grids, dtype=np.int64)}

    def _joined(self, pixels: np.ndarray, *, frames: int) -> tuple[np.ndarray, int]:
        """Patches of frames, each repeated in time, to patches of consecutive frames, and their number in time."""
        depth, side = self.temporal_patch_size, self.pictures.patch_size
        one = pixels.reshape(frames, -1, 3, depth, side * side)[:, :, :, 0]  # frames, patches, channels, pixels
        one = np.concatenate([one, np.repeat(one[-1:], -frames % depth, axis=0)])
        steps = len(one) // depth
        joined = one.reshape(steps, depth, *one.shape[1:]).transpose(0, 2, 3, 1, 4)
        return joined.reshape(steps * joined.shape[1], -1), steps


_EDGES = {"shortest_edge": "min_pixels", "longest_edge": "max_pixels"}


def _flat(videos: Sequence[Any]) -> list[np.ndarray]:
    """Videos in order, whatever lists they stand in."""
    return [one for given in videos for one in ([given] if isinstance(given, np.ndarray) else _flat(given))]
