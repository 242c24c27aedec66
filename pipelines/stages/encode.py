"""Stage `encode`: pictures and clips to latents, texts to what the denoiser reads of them; once, for every training run.

Training then needs neither the VAE nor the text encoders in memory. Pictures of several shapes are resized to cover the
nearest of a list of buckets of about one area, and cropped in the middle; clips are cut to the longest 4k + 1 frames that
a list of lengths allows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from actors.media import decode
from infra.config import Config
from infra.dag.stage import Context, Inputs, Lookup, Places, RowStage, RunInputs, Stage, Unforeseeable, Worker
from infra.identity import group_id, key_of, row_id
from infra.store.files import Folder, manifest, refuse_unsafe
from pipelines.models.families.base import Family
from pipelines.schemas.samples import Encoded, EncodedSize
from pipelines.stages.sources import Pictures

LATENT, TEXT = "latent", "text"
FIRST = {LATENT: "0", TEXT: "1"}  # leads the id: latents before texts, so that a shard needs one kind of encoder


class Encoders(Config):
    """The VAE and the text encoders of a generator: all of its folder but what is trained and how it is sampled."""

    family: Family

    def identity(self) -> dict[str, Any]:
        """Content hash of those parts: a tuned copy of the generator has the same encoders, and needs no new latents."""
        family, weights = self.family, self.family.weights
        if not isinstance(weights, Folder):
            return {"family": family.name, "weights": weights}
        refuse_unsafe(weights.local)
        other = (family.part, "scheduler")
        kept = manifest(weights.local).only(lambda name: "/" in name and name.split("/")[0] not in other)
        return {"family": family.name, "encoders": kept.digest}


class Buckets(Config):
    """Shapes that pictures and clips are brought to; a batch is of one shape."""

    area: int = Field(512 * 512, ge=64)
    """Pixels of a picture or frame, about."""
    multiple: int = Field(64, ge=1)
    """Height and width are multiples of this."""
    ratio: float = Field(2.0, ge=1)
    """The longest side over the shortest, at most."""
    frames: tuple[Annotated[int, Field(ge=1)], ...] = (1,)
    """Lengths of clips, each 4k + 1 for a VAE that compresses time by four; a clip is cut to the longest that fits."""

    def shapes(self) -> list[tuple[int, int]]:
        """Every (height, width), by aspect ratio."""
        side = math.sqrt(self.area)
        found = set()
        for height in range(self.multiple, int(side * math.sqrt(self.ratio)) + self.multiple, self.multiple):
            width = max(self.multiple, round(self.area / height / self.multiple) * self.multiple)
            if max(height, width) <= self.ratio * min(height, width) + 1e-9:
                found |= {(height, width), (width, height)}
        return sorted(found, key=lambda shape: shape[0] / shape[1]) or [(self.multiple, self.multiple)]

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """The bucket whose aspect ratio is nearest on a log scale; among equals the one of nearest area."""
        wanted = math.log(height / width)

        def distance(shape: tuple[int, int]) -> tuple[float, float]:
            off = abs(math.log(shape[0] / shape[1]) - wanted)
            return round(off, 9), abs(math.log(shape[0] * shape[1] / self.area))

        return min(self.shapes(), key=distance)

    def length(self, frames: int) -> int:
        """The longest allowed length that a clip of so many frames fills; raises ValueError where it fills none."""
        allowed = [length for length in self.frames if length <= frames]
        if not allowed:
            raise ValueError(f"a clip of {frames} frames is shorter than the shortest bucket of {min(self.frames)} frames")
        return max(allowed)

    def fit(self, pixels: np.ndarray) -> np.ndarray:
        """uint8[f, h, w, 3] to its bucket: cut, resized to cover (bicubic), cropped in the middle."""
        from PIL import Image as Pillow

        length = self.length(len(pixels))
        height, width = self.shape(*pixels.shape[1:3])
        if pixels.shape[1:3] == (height, width):
            return pixels[:length]
        scale = max(height / pixels.shape[1], width / pixels.shape[2])
        size = (max(width, round(pixels.shape[2] * scale)), max(height, round(pixels.shape[1] * scale)))
        top, left = (size[1] - height) // 2, (size[0] - width) // 2
        frames = [np.asarray(Pillow.fromarray(frame).resize(size, Pillow.Resampling.BICUBIC)) for frame in pixels[:length]]
        return np.stack([frame[top : top + height, left : left + width] for frame in frames])


class Encoder:
    """The worker: one kind of encoder in memory at a time."""

    def __init__(self, encoders: Encoders, pictures: Lookup, *, medium: str, buckets: Buckets, dtype: str) -> None:
        self.encoders, self.pictures, self.medium = encoders, pictures, medium
        self.buckets, self.dtype = buckets, dtype

    def open(self, device: str, places: Places) -> None:
        """Encoders load when the first cell asks for them."""
        self.device = device
        self.family = self.encoders.family.placed(places)
        self.loaded: dict[str, Any] = {}

    def _loaded(self, kind: str) -> Any:
        if kind not in self.loaded:
            import torch

            self.loaded.clear()
            parts: Literal["decoder", "encoders"] = "decoder" if kind == LATENT else "encoders"
            dtype = getattr(torch, self.dtype)
            self.loaded[kind] = self.family.load(parts=parts, device=torch.device(self.device), dtype=dtype)
        return self.loaded[kind]

    def run(self, cells: pa.Table) -> list[Encoded]:
        """One row a cell, in order."""
        rows = cells.to_pylist()
        texts = [row for row in rows if row["kind"] == TEXT]
        latents = [row for row in rows if row["kind"] == LATENT]
        found = {encoded.id: encoded for encoded in [*self._latents(latents), *self._texts(texts)]}
        return [found[row["id"]] for row in rows]

    def _texts(self, rows: list[dict[str, Any]]) -> list[Encoded]:
        from safetensors.torch import save

        if not rows:
            return []
        family = self._loaded(TEXT)
        # The empty text is what guidance leads away from: SDXL takes zeros for it.
        conditions = [family.encode_texts([row["text"]])[0] if row["text"] else family.unconditional() for row in rows]
        tensors = [save({name: value.contiguous().cpu() for name, value in one.items()}) for one in conditions]
        return [Encoded(**row, frames=0, height=0, width=0, tensors=data) for row, data in zip(rows, tensors, strict=True)]

    def _latents(self, rows: list[dict[str, Any]]) -> list[Encoded]:
        from safetensors.torch import save

        if not rows:
            return []
        media = self.pictures.take([row["source"] for row in rows], [self.medium])[self.medium].to_pylist()
        pixels = [self.buckets.fit(decode(one["bytes"], clip=self.medium == "video")) for one in media]
        found = []
        for row, one in zip(rows, pixels, strict=True):
            # One by one: a picture's latent must not depend on what is encoded beside it.
            data = save({"latent": self._loaded(LATENT).encode_pixels(one[None])[0].contiguous().cpu()})
            frames, height, width, _ = one.shape
            found.append(Encoded(**row, frames=frames, height=height, width=width, tensors=data))
        return found


class Encode(RowStage):
    """Pictures or clips in; their latents and the embeddings of their texts out."""

    name: ClassVar = "encode"
    row: ClassVar = Encoded
    in_cells: ClassVar = ("texts", "buckets")
    tables: ClassVar[Mapping[str, type]] = {"sizes": EncodedSize}

    pictures: Pictures
    encoders: Encoders
    buckets: Buckets = Buckets()
    "Shapes of the training pictures."
    texts: tuple[str, ...] = ()
    "Texts to encode besides the pictures' own and the empty one: those of preview pictures."
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    "Of the encoders and of what is stored."
    shard_rows: int = Field(64, ge=1)
    "Rows a file and a call."

    def settings(self, kind: str) -> str:
        """What besides the source determines an encoded row."""
        buckets = key_of(self.buckets) if kind == LATENT else ""
        return key_of([self.name, self.version, self.encoders, buckets, self.dtype])

    def id_of(self, kind: str, source: str, *, settings: str) -> str:
        """Id of an encoded picture (`source`: its id) or text (`source`: `text_source`)."""
        return row_id(FIRST[kind] + source[:11], kind, settings, source)

    def cells(self, inputs: Inputs) -> pa.Table:
        """Columns id, kind, source, text: each picture, then each different text."""
        pictures = inputs.table(self.pictures, ["id", "text"])
        rows: list[dict[str, str]] = []
        settings = {kind: self.settings(kind) for kind in (LATENT, TEXT)}
        for source, text in zip(pictures["id"].to_pylist(), pictures["text"].to_pylist(), strict=True):
            rows.append(self._cell(LATENT, source, text, settings[LATENT]))
        for text in sorted({*pictures["text"].to_pylist(), *self.texts, ""}):
            rows.append(self._cell(TEXT, text_source(text), text, settings[TEXT]))
        return pa.Table.from_pylist(rows)

    def _cell(self, kind: str, source: str, text: str, settings: str) -> dict[str, str]:
        return {"id": self.id_of(kind, source, settings=settings), "kind": kind, "source": source, "text": text}

    def looks_up(self) -> dict[str, Stage]:
        """The worker reads the pictures by id."""
        return {"source": self.pictures}

    def worker(self, inputs: RunInputs) -> Worker:
        """The generator's own encoders."""
        return Encoder(
            self.encoders,
            inputs.lookup(self.pictures),
            medium=self.pictures.medium,
            buckets=self.buckets,
            dtype=self.dtype,
        )

    def finish(self, context: Context, rows: Callable[..., pa.Table]) -> None:
        """The shapes without the tensors."""
        columns = list(EncodedSize.__dataclass_fields__)
        context.emit("sizes", [EncodedSize(**row) for row in rows(columns).to_pylist()])

    def expected_rows(self, inputs: Inputs) -> int | None:
        """Every picture, and a text for each two of them at most."""
        try:
            pictures = self.pictures.expected_rows(inputs)
        except Unforeseeable:
            return None
        return None if pictures is None else pictures + pictures // 2 + 1 + len(self.texts)


def text_source(text: str) -> str:
    """A text's source: 24 hex characters of its hash, the prompt's id first."""
    return group_id(text) + key_of(text)[:12]
