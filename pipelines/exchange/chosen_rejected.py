"""prompt, chosen, rejected: the plain form of preference data, as Parquet, JSON lines, a JSON list or CSV.

`chosen` and `rejected` are paths inside the folder or, in Parquet, the files themselves (bytes, or struct<bytes, path> as
Hugging Face keeps a picture). Optional: `chosen_model`, `rejected_model`, `agreement`, `id`. The chosen sample is a.
The written form is Parquet that contains the files, which `datasets.load_dataset` opens as pictures or clips.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from infra.store.tables import Image, Video, schema_of
from pipelines.exchange.files import ParquetFiles
from pipelines.exchange.pairs import UNKNOWN, Layout, PairWithMedia, Row
from pipelines.exchange.records import Records, SourceRecord, media_of, number_of, text_of


@dataclass(frozen=True)
class ChosenPicture:
    """Two pictures of one prompt, the better one first."""

    id: str
    prompt: str
    chosen: Image
    rejected: Image
    chosen_model: str
    rejected_model: str
    agreement: float


@dataclass(frozen=True)
class ChosenClip:
    """Two clips of one prompt, the better one first."""

    id: str
    prompt: str
    chosen: Video
    rejected: Video
    chosen_model: str
    rejected_model: str
    agreement: float


class ChosenRejected(Records):
    """Chosen and rejected samples, as the module describes them."""

    name: ClassVar = "chosen_rejected"
    ties: ClassVar = False
    silent: ClassVar = "ties, scores, margins by dimension, and which was shown first"
    columns: ClassVar = tuple(ChosenPicture.__dataclass_fields__)
    endings: ClassVar = (".parquet", ".jsonl", ".json", ".csv")
    required: ClassVar = ("prompt", "chosen", "rejected")
    media: ClassVar = ("chosen", "rejected")

    def pairs(self, record: SourceRecord) -> Iterable[Row]:
        """One pair per record."""
        agreement = number_of(record, "agreement")
        yield Row(
            place=record.place,
            number=record.number,
            prompt=text_of(record, "prompt"),
            a=media_of(record, "chosen"),
            b=media_of(record, "rejected"),
            choice="a",
            agreement=1.0 if agreement is None else agreement,
            generator_a=text_of(record, "chosen_model") or UNKNOWN,
            generator_b=text_of(record, "rejected_model") or UNKNOWN,
            own=text_of(record, "id"),
        )

    def write(self, pairs: Iterable[PairWithMedia], folder: Path, *, layout: Layout) -> None:
        """See `Format`."""
        schema = schema_of(ChosenPicture if layout.medium == "image" else ChosenClip)
        with ParquetFiles(folder / "data", schema, renamed=layout.renamed) as files:
            for pair in pairs:
                sides = [(pair.a, pair.generator_a), (pair.b, pair.generator_b)]
                (chosen, best), (rejected, other) = sides if pair.choice == "a" else sides[::-1]
                files.add(
                    {
                        "id": pair.id,
                        "prompt": pair.prompt,
                        "chosen": {"bytes": chosen, "path": None},
                        "rejected": {"bytes": rejected, "path": None},
                        "chosen_model": best,
                        "rejected_model": other,
                        "agreement": pair.agreement,
                    }
                )
