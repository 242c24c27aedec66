"""Salon's own format: Parquet that `datasets.load_dataset` opens as pictures or clips, and a card.

prompt; image_a, image_b (or video_a, video_b): struct<bytes, path> or bytes; choice: a, b or tie. Optional: id, agreement
(share of the voters who made this choice), score (log-odds of a over b), generator_a, generator_b, subset (part of the
data set), and for each dimension a column margin_NAME (reward of a minus that of b, or +1, 0, -1) and columns score_a_NAME
and score_b_NAME (the score of each sample by itself; NAME is overall where there is one score). Scores are read and not
written.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from infra.store.tables import Image, Video, schema_of
from pipelines.exchange.card import card
from pipelines.exchange.files import ParquetFiles
from pipelines.exchange.pairs import UNKNOWN, BadRow, Layout, PairWithMedia, Row
from pipelines.exchange.records import Records, SourceRecord, media_of, number_of, text_of

MARGIN = "margin_"
OWN_SCORES = {side: f"score_{side}_" for side in "ab"}
SUBSET = "subset"


@dataclass(frozen=True)
class PicturePair:
    """Two pictures of one prompt."""

    id: str
    prompt: str
    image_a: Image
    image_b: Image
    choice: str
    agreement: float
    score: float
    generator_a: str
    generator_b: str


@dataclass(frozen=True)
class ClipPair:
    """Two clips of one prompt."""

    id: str
    prompt: str
    video_a: Video
    video_b: Video
    choice: str
    agreement: float
    score: float
    generator_a: str
    generator_b: str


class Salon(Records):
    """Salon's own format, as the module describes it."""

    name: ClassVar = "salon"
    silent: ClassVar = "scores of single samples"
    columns: ClassVar = (
        *("id", "prompt", "image_a", "image_b", "video_a", "video_b", "choice"),
        *("agreement", "score", "generator_a", "generator_b", SUBSET),
    )
    endings: ClassVar = (".parquet",)
    required: ClassVar = ("prompt", "choice")
    media: ClassVar = ("image_a", "image_b", "video_a", "video_b")

    def knows(self, column: str) -> bool:
        """True for the columns, and for margins and scores of any dimension."""
        return column in self.columns or column.startswith((MARGIN, *OWN_SCORES.values()))

    def writes(self, column: str) -> bool:
        """True for every column but the scores."""
        return self.knows(column) and not column.startswith(tuple(OWN_SCORES.values()))

    def pairs(self, record: SourceRecord) -> Iterable[Row]:
        """One pair per record."""
        medium = next((m for m in self.holds if f"{m}_a" in record.values and f"{m}_b" in record.values), "")
        if not medium:
            raise BadRow("it has neither image_a and image_b nor video_a and video_b")
        agreement = number_of(record, "agreement")
        yield Row(
            place=record.place,
            number=record.number,
            prompt=text_of(record, "prompt"),
            a=media_of(record, f"{medium}_a"),
            b=media_of(record, f"{medium}_b"),
            choice=text_of(record, "choice"),
            agreement=1.0 if agreement is None else agreement,
            score=number_of(record, "score"),
            generator_a=text_of(record, "generator_a") or UNKNOWN,
            generator_b=text_of(record, "generator_b") or UNKNOWN,
            margins=numbers_of(record, MARGIN),
            subset=text_of(record, SUBSET),
            scores_a=numbers_of(record, OWN_SCORES["a"]),
            scores_b=numbers_of(record, OWN_SCORES["b"]),
            own=text_of(record, "id"),
        )

    def write(self, pairs: Iterable[PairWithMedia], folder: Path, *, layout: Layout) -> None:
        """Writes Parquet files and the card."""
        medium, dimensions = layout.medium, layout.dimensions
        schema = schema_with(dimensions, medium=medium, subsets=layout.subsets)
        counted = {"a": 0, "b": 0, "tie": 0}
        makers: set[str] = set()
        with ParquetFiles(folder / "data", schema, renamed=layout.renamed) as files:
            for pair in pairs:
                counted[pair.choice] += 1
                makers |= {pair.generator_a, pair.generator_b}
                files.add(
                    {
                        "id": pair.id,
                        "prompt": pair.prompt,
                        f"{medium}_a": {"bytes": pair.a, "path": None},
                        f"{medium}_b": {"bytes": pair.b, "path": None},
                        "choice": pair.choice,
                        "agreement": pair.agreement,
                        "score": pair.score,
                        "generator_a": pair.generator_a,
                        "generator_b": pair.generator_b,
                    }
                    | {f"{MARGIN}{name}": pair.margins.get(name) for name in dimensions}
                    | ({SUBSET: pair.subset or None} if layout.subsets else {})
                )
        text = card(counted, generators=sorted(makers), layout=layout)
        (folder / "README.md").write_text(text, encoding="utf-8")


def numbers_of(record: SourceRecord, prefix: str) -> dict[str, float]:
    """Numbers of the columns whose names begin so, by the rest of the name; those that are empty are left out."""
    found = {name.removeprefix(prefix): number_of(record, name) for name in record.values if name.startswith(prefix)}
    return {name: value for name, value in found.items() if value is not None}


def schema_with(dimensions: Sequence[str], *, medium: str, subsets: bool) -> pa.Schema:
    """The columns of a data set with these dimensions; the metadata marks pictures and clips for Hugging Face."""
    base = schema_of(PicturePair if medium == "image" else ClipPair)
    features = json.loads(base.metadata[b"huggingface"])
    added = [(f"{MARGIN}{name}", pa.float64(), "float64") for name in dimensions]
    for name, kind, written in [*added, *([(SUBSET, pa.string(), "string")] if subsets else [])]:
        base = base.append(pa.field(name, kind, nullable=True))
        features["info"]["features"][name] = {"dtype": written, "_type": "Value"}
    return base.with_metadata({"huggingface": json.dumps(features, sort_keys=True)})
