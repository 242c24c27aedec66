"""Renders pictures with one generator at a time on one device."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from actors.protocols import LoadedSampler, Sampler
from infra.store.tables import Image


def device_of_process() -> str:
    """The device: "cuda" where Ray gave this process a GPU, else "cpu" with one thread: bytes depend on no machine."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    torch.set_num_threads(1)
    return "cpu"


def encode_png(picture: np.ndarray) -> Image:
    """uint8 [height, width, 3] as PNG; the same pixels give the same bytes."""
    from PIL import Image as Pillow

    sink = io.BytesIO()
    Pillow.fromarray(picture).save(sink, format="PNG", compress_level=6)
    return Image(bytes=sink.getvalue())


class Models:
    """Loads models when first asked for and keeps the last `resident` of them."""

    def __init__(self, configs: Sequence[Any], *, load: Callable[[Any], Any], resident: int) -> None:
        self.configs = {config.name: config for config in configs}
        self.load = load
        self.resident = resident
        self.loaded: dict[str, Any] = {}

    def get(self, name: str) -> Any:
        """The loaded model called `name`."""
        if name not in self.loaded:
            while len(self.loaded) >= self.resident:
                self.loaded.pop(next(iter(self.loaded)))
            self.loaded[name] = self.load(self.configs[name])
        self.loaded[name] = self.loaded.pop(name)  # most recently used last
        return self.loaded[name]


class Renderer:
    """Cells (id, prompt_id, text, generator, sample, seed) to pictures, rows of `row`."""

    def __init__(self, samplers: Sequence[Sampler], *, row: type, resident: int = 1) -> None:
        self.samplers = list(samplers)
        self.row = row
        self.resident = resident

    def open(self) -> None:
        """Models load when the first cell asks for them."""
        device = device_of_process()
        self.models = Models(self.samplers, load=lambda sampler: sampler.load(device), resident=self.resident)

    def run(self, cells: pa.Table) -> list[Any]:
        """One row a cell, in order; neighbouring cells of one generator are one batch."""
        rows = cells.to_pylist()
        pictures: list[Image] = []
        start = 0
        while start < len(rows):
            stop = start
            while stop < len(rows) and rows[stop]["generator"] == rows[start]["generator"]:
                stop += 1
            sampler: LoadedSampler = self.models.get(rows[start]["generator"])
            part = rows[start:stop]
            pictures += [encode_png(p) for p in sampler.sample([r["text"] for r in part], [r["seed"] for r in part])]
            start = stop
        return [self.row(**row, image=picture) for row, picture in zip(rows, pictures, strict=True)]
