"""Pictures and clips as uint8, and as a VAE reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from infra.config import ConfigError
from infra.lazy import lazy

if TYPE_CHECKING:
    import torch

    from pipelines.models.families.base import Family
else:
    torch = lazy("torch")


def from_pixels(pixels: np.ndarray) -> torch.Tensor:
    """uint8[b, f, h, w, 3] as float[b, 3, f, h, w] in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 4, 1, 2, 3).float().div(127.5).sub(1)


def to_pixels(frames: torch.Tensor) -> np.ndarray:
    """float[b, 3, f, h, w] as uint8[b, f, h, w, 3], clipped to [-1, 1] and rounded."""
    levels = frames.detach().cpu().float().add(1).mul(127.5).round().clamp(0, 255)
    return levels.to(torch.uint8).permute(0, 2, 3, 4, 1).contiguous().numpy()


def refuse_shape(pixels: np.ndarray, *, family: Family) -> None:
    """Raises ConfigError unless pixels are uint8[b, f, h, w, 3] of a size and length that the family takes."""
    if pixels.dtype != np.uint8 or pixels.ndim != 5 or pixels.shape[-1] != 3:
        raise ConfigError(f"pixels are {pixels.dtype}{list(pixels.shape)}; give uint8[batch, frames, height, width, 3]")
    _, frames, height, width, _ = pixels.shape
    multiple = family.size_multiple
    if height % multiple or width % multiple:
        raise ConfigError(f"{family.name} takes multiples of {multiple} px, got {height}x{width} px; resize or crop")
    if family.frame_multiple is None and frames != 1:
        raise ConfigError(f"{family.name} takes pictures, got a clip of {frames} frames; use a video generator's family")
    if family.frame_multiple is not None and frames % family.frame_multiple != 1:
        nearest = max(frames - 1, 0) // family.frame_multiple * family.frame_multiple + 1
        raise ConfigError(
            f"{family.name} takes clips of {family.frame_multiple}k + 1 frames, got {frames}; cut them to {nearest}"
        )
