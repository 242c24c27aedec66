"""Stage `encode_texts`: prompts to what the denoiser reads of them, for training that makes its own pictures."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from infra.dag.stage import Inputs, Places, RowStage, RunInputs, Worker
from infra.identity import key_of, row_id
from pipelines.schemas.prompts import Split
from pipelines.schemas.samples import Encoded
from pipelines.stages.encode import SHAPE, TEXT, Encoders, encoded_texts, text_source
from pipelines.stages.prompts import WritePrompts


class EncodeTexts(RowStage):
    """Prompts in; the embeddings of their texts and of the empty text out."""

    name: ClassVar = "encode_texts"
    row: ClassVar = Encoded
    in_cells: ClassVar = ("splits", "texts")

    prompts: WritePrompts
    encoders: Encoders
    splits: tuple[Split, ...] = ("train",)
    "Prompts of these splits are encoded."
    texts: tuple[str, ...] = ()
    "Texts to encode besides those of the prompts and the empty one: those of preview pictures."
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    "Data type of the encoders and of what is stored."
    shard_rows: int = Field(64, ge=1)
    "Rows per file and per call."

    def cells(self, inputs: Inputs) -> pa.Table:
        """One cell per text, with the columns that a latent's cell has."""
        table = inputs.table(self.prompts, ["text", "split"]).to_pylist()
        texts = sorted({"", *self.texts, *(row["text"] for row in table if row["split"] in self.splits)})
        empty = np.zeros(len(texts), dtype=np.int64)
        columns = {
            "id": [self.text_id(text) for text in texts],
            "kind": [TEXT] * len(texts),
            "source": [text_source(text) for text in texts],
            "text": texts,
            **dict.fromkeys(SHAPE, empty),
            "flipped": [False] * len(texts),
        }
        return pa.table(columns)

    def text_id(self, text: str) -> str:
        """Id of the row of a text."""
        source = text_source(text)
        return row_id(source[:12], self.name, key_of([self.version, self.encoders, self.dtype]), source)

    def require_here(self) -> None:
        """Raises ConfigError where the files of the weights are cut off."""
        self.encoders.family.require_whole()

    def worker(self, inputs: RunInputs) -> Worker:
        """The generator's own text encoders."""
        del inputs
        return TextWorker(self.encoders, self.dtype)

    def expected_rows(self, inputs: Inputs) -> int | None:
        """At most one per prompt, and the empty text."""
        known = self.prompts.expected_rows(inputs)
        return None if known is None else known + 1


class TextWorker:
    """The worker: text encoders in memory."""

    def __init__(self, encoders: Encoders, dtype: str) -> None:
        self.encoders, self.dtype = encoders, dtype

    def open(self, device: str, places: Places) -> None:
        """Loads the text encoders."""
        import torch

        family = self.encoders.family.placed(places)
        self.loaded = family.load(parts="encoders", device=torch.device(device), dtype=getattr(torch, self.dtype))

    def run(self, cells: pa.Table) -> list[Encoded]:
        """One row per cell, in order."""
        rows = cells.to_pylist()
        found = encoded_texts(self.loaded, rows)
        return [found[row["id"]] for row in rows]
