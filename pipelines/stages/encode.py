"""Stage `encode`: pictures and clips to latents, texts to what the denoiser reads of them; once, for every training run.

Training then needs neither the VAE nor the text encoders in memory. Shape and length belong to the pair
(`pipelines.training.buckets`), so a picture is encoded once for every shape in which it is compared. Clips are resampled
to the family's frame rate by their time stamps, and only the frames that are used are decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from actors.media import decode, decode_at
from infra.config import Config
from infra.dag.stage import Context, Inputs, Lookup, Places, RowStage, RunInputs, Stage, Unforeseeable, Worker
from infra.identity import group_id, key_of, row_id
from infra.store.files import Folder, manifest, refuse_unsafe
from pipelines.models.families.base import Family
from pipelines.schemas.samples import Encoded, EncodedSize
from pipelines.stages.sources import Pairing, Pictures
from pipelines.training.buckets import Buckets
from pipelines.training.data import SOURCE

LATENT, TEXT = "latent", "text"
SHAPE = ("frames", "height", "width")
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

    def run(self, cells: pa.Table) -> list[Encoded | Exception]:
        """One row per cell, in order; a picture that cannot be encoded is an exception in its place."""
        rows = cells.to_pylist()
        texts = [row for row in rows if row["kind"] == TEXT]
        latents = [row for row in rows if row["kind"] == LATENT]
        found: dict[str, Encoded | Exception] = self._texts(texts) | self._latents(latents)
        return [found[row["id"]] for row in rows]

    def _texts(self, rows: list[dict[str, Any]]) -> dict[str, Encoded]:
        return encoded_texts(self._loaded(TEXT), rows) if rows else {}

    def _latents(self, rows: list[dict[str, Any]]) -> dict[str, Encoded | Exception]:
        found: dict[str, Encoded | Exception] = {}
        if not rows:
            return found
        media = self.pictures.take([row["source"] for row in rows], [self.medium, *self._timing])
        for row, one in zip(rows, media.to_pylist(), strict=True):
            # One by one: a latent must not depend on what is encoded beside it, and few pixels are held at a time.
            try:
                found[row["id"]] = self._latent(row, one)
            except ValueError as error:
                found[row["id"]] = error
        return found

    @property
    def _timing(self) -> tuple[str, ...]:
        return ("fps",) if self.medium == "video" else ()

    def _latent(self, row: dict[str, Any], picture: dict[str, Any]) -> Encoded:
        from safetensors.torch import save

        data, fps = picture[self.medium]["bytes"], picture.get("fps")
        if self.medium == "video":
            pixels = decode_at(data, times=self.buckets.times(row["frames"], fps=fps))
        else:
            pixels = decode(data, clip=False)
        original = pixels.shape[1:3]
        place = self.buckets.placement(*original, height=row["height"], width=row["width"])
        pixels = self.buckets.fit(pixels, height=row["height"], width=row["width"])
        left = place.left
        if row["flipped"]:
            pixels = np.ascontiguousarray(pixels[:, :, ::-1])
            left = place.width - row["width"] - place.left
        sizes = dict(zip(SOURCE, (*original, place.top, left), strict=True))
        rate = fps if self.buckets.rate is None or fps is None else self.buckets.rate
        tensors = {name: value.contiguous() for name, value in self._loaded(LATENT).encode_media(pixels).items()}
        return Encoded(**row, fps=rate, **sizes, tensors=save(tensors))


class Encode(RowStage):
    """Pairs of pictures or clips in; their latents in the shapes of the pairs, and the embeddings of the texts out."""

    name: ClassVar = "encode"
    version: ClassVar = 4
    row: ClassVar = Encoded
    in_cells: ClassVar = ("texts", "buckets", "flips")
    tables: ClassVar[Mapping[str, type]] = {"sizes": EncodedSize}

    pairs: Pairing
    "Which pictures are compared, and under which texts: pairs before they are judged, or labels."
    pictures: Pictures
    "Where the files are."
    encoders: Encoders
    buckets: Buckets = Buckets()
    "Shapes of the training pictures."
    flips: bool = False
    "Encode every picture a second time with left and right exchanged, for training that flips."
    texts: tuple[str, ...] = ()
    "Texts to encode besides those of the pairs and the empty one: those of preview pictures."
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    "Data type of the encoders and of what is stored."
    shard_rows: int = Field(64, ge=1)
    "Rows per file and per call."

    def cells(self, inputs: Inputs) -> pa.Table:
        """Columns id, kind, source, text, frames, height, width, flipped: each picture in each shape, then each text."""
        pairs = inputs.table(self.pairs, ["text", "picture_a", "picture_b"])
        shapes = self.shapes(pairs, inputs)
        sides = [shapes.select([f"picture_{side}", *SHAPE]).rename_columns(["source", *SHAPE]) for side in "ab"]
        found = pa.concat_tables(sides)
        found = found.filter(pc.greater(found["frames"], 0)).group_by(["source", *SHAPE]).aggregate([])
        settings = key_of([self.name, self.version, self.encoders, self.buckets.rate, self.buckets.own, self.dtype])
        pieces = []
        for flipped in (False, True) if self.flips else (False,):
            rows = zip(*(found[name].to_pylist() for name in ("source", *SHAPE)), strict=True)
            ids = [row_id(FIRST[LATENT] + row[0][:11], LATENT, settings, *row, int(flipped)) for row in rows]
            pieces.append(_cells(LATENT, ids, found, text=pa.repeat(pa.scalar(""), len(ids)), flipped=flipped))
        texts = sorted({*pairs["text"].to_pylist(), *self.texts, ""})
        named = pa.table(
            {"source": [text_source(text) for text in texts], **dict.fromkeys(SHAPE, np.zeros(len(texts), int))}
        )
        ids = [self.text_id(text) for text in texts]
        return pa.concat_tables([*pieces, _cells(TEXT, ids, named, text=pa.array(texts, pa.string()), flipped=False)])

    def shapes(self, pairs: pa.Table, inputs: Inputs) -> pa.Table:
        """Columns picture_a, picture_b, frames, height, width: the shape of every pair.

        A pair has frames = 0 where one of its clips is too short or one of its pictures is not there.
        """
        sides = [pairs[f"picture_{side}"].combine_chunks() for side in "ab"]
        if self.buckets.only is not None and not self.pictures.clips:
            frames, height, width = (np.full(pairs.num_rows, value) for value in self.buckets.only)
        else:
            timing = ["frames", "fps"] if self.pictures.clips else []
            known = inputs.table(self.pictures, ["id", "height", "width", *timing])
            places = [pc.index_in(side, known["id"].combine_chunks()) for side in sides]
            there = np.asarray(pc.and_(*(pc.is_valid(place) for place in places)))
            members = [known.take(pc.fill_null(place, 0)) if known.num_rows else known for place in places]
            frames, height, width = np.zeros((3, pairs.num_rows), dtype=np.int64)
            if there.any():
                lengths = np.minimum(*(self._frames(one) for one in members)) if timing else np.ones(len(there), dtype=int)
                sizes = [np.stack([one["height"].to_numpy(), one["width"].to_numpy()], axis=1) for one in members]
                frames = np.where(there, self.buckets.lengths(lengths), 0)
                height, width = self.buckets.shapes_of(*sizes).T
        return pa.table(dict(zip(("picture_a", "picture_b", *SHAPE), (*sides, frames, height, width), strict=True)))

    def _frames(self, clips: pa.Table) -> np.ndarray:
        fps = pc.cast(clips["fps"], pa.float64()).to_numpy()
        return self.buckets.shown(clips["frames"].to_numpy(), np.asarray(fps, dtype=np.float64))

    def text_id(self, text: str) -> str:
        """Id of the row of a text."""
        source = text_source(text)
        return row_id(FIRST[TEXT] + source[:11], TEXT, key_of([self.name, self.version, self.encoders, self.dtype]), source)

    def looks_up(self) -> dict[str, Stage]:
        """The worker reads the pictures by id."""
        return {"source": self.pictures}

    def require_here(self) -> None:
        """Raises ConfigError where the files of the weights are cut off."""
        self.encoders.family.require_whole()

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
        """Every picture in one shape, and one text for each two of them at most."""
        try:
            pictures = self.pictures.expected_rows(inputs)
        except Unforeseeable:
            return None
        each = 2 if self.flips else 1
        return None if pictures is None else each * pictures + pictures // 2 + 1 + len(self.texts)


def encoded_texts(family: Any, rows: list[dict[str, Any]]) -> dict[str, Encoded]:
    """Embeddings of the cells of texts, by id; `family` is loaded with its text encoders."""
    from safetensors.torch import save

    # The empty text is what guidance leads away from: SDXL takes zeros for it.
    conditions = [family.encode_texts([row["text"]])[0] if row["text"] else family.unconditional() for row in rows]
    # Copies: SD1.5's pooled state is a row of its tokens, and safetensors refuses two tensors in one piece of memory.
    tensors = [save({name: value.cpu().clone().contiguous() for name, value in one.items()}) for one in conditions]
    sizes = dict.fromkeys(SOURCE)
    return {row["id"]: Encoded(**row, fps=None, **sizes, tensors=data) for row, data in zip(rows, tensors, strict=True)}


def _cells(kind: str, ids: list[str], rows: pa.Table, *, text: pa.Array, flipped: bool) -> pa.Table:
    """Cells of one kind, from columns source and SHAPE."""
    named = {"id": pa.array(ids, pa.string()), "kind": pa.repeat(pa.scalar(kind), len(ids)), "source": rows["source"]}
    shape = {name: rows[name].cast(pa.int64()) for name in SHAPE}
    return pa.table(named | {"text": text} | shape | {"flipped": pa.repeat(pa.scalar(flipped), len(ids))})


def text_source(text: str) -> str:
    """A text's source: 24 hex characters of its hash, the prompt's id first."""
    return group_id(text) + key_of(text)[:12]
