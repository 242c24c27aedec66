"""Pick-a-Pic v1 and v2 (Kirstain et al., 2023): Parquet with both pictures in the row.

caption; jpg_0, jpg_1 (bytes); label_0, label_1 (1 and 0, or 0.5 twice for a tie); has_label; best_image_uid (one of
image_0_uid and image_1_uid, or `tie`); model_0, model_1; ranking_id. Picture 0 is a, picture 1 is b. Pictures are
written as plain bytes, as in the original files, and unchanged: a column named jpg_0 may hold a PNG.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from pipelines.exchange.files import ParquetFiles
from pipelines.exchange.pairs import UNKNOWN, BadRow, Layout, PairWithMedia, Row
from pipelines.exchange.records import Records, SourceRecord, media_of, number_of, text_of

LABELS = {(1.0, 0.0): "a", (0.0, 1.0): "b", (0.5, 0.5): "tie"}
NUMBERS = {choice: labels for labels, choice in LABELS.items()}
SCHEMA = pa.schema(
    [("caption", pa.string()), ("jpg_0", pa.binary()), ("jpg_1", pa.binary())]
    + [("label_0", pa.float64()), ("label_1", pa.float64()), ("has_label", pa.bool_()), ("best_image_uid", pa.string())]
    + [(name, pa.string()) for name in ("image_0_uid", "image_1_uid", "model_0", "model_1")]
    + [("are_different", pa.bool_()), ("ranking_id", pa.int64())]
)


class PickAPic(Records):
    """Both versions, as the module describes them."""

    name: ClassVar = "pickapic"
    holds: ClassVar = ("image",)
    silent: ClassVar = "agreement, scores and margins by dimension"
    columns: ClassVar = tuple(SCHEMA.names)
    endings: ClassVar = (".parquet",)
    required: ClassVar = ("caption", "jpg_0", "jpg_1", "label_0", "label_1")
    media: ClassVar = ("jpg_0", "jpg_1")

    def pairs(self, record: SourceRecord) -> Iterable[Row]:
        """One pair per record."""
        values = record.values
        if values.get("has_label") is False:
            raise BadRow("has_label is false: the pair has no label")
        given = (number_of(record, "label_0"), number_of(record, "label_1"))
        if given not in LABELS:
            raise BadRow(f"label_0 {given[0]} and label_1 {given[1]} must be 1 and 0, 0 and 1, or 0.5 and 0.5")
        choice = LABELS[given]  # type: ignore[index]
        uids = [text_of(record, f"image_{n}_uid") for n in (0, 1)]
        best = text_of(record, "best_image_uid")
        said = {uids[0]: "a", uids[1]: "b", "tie": "tie"}.get(best, choice)
        if best and said != choice and uids[0] != uids[1]:
            raise BadRow(f"its labels mean {choice}, its best_image_uid means {said}")
        ranking = text_of(record, "ranking_id")
        # A ranking of four pictures gives several pairs of one ranking_id.
        yield Row(
            place=record.place,
            number=record.number,
            prompt=text_of(record, "caption"),
            a=media_of(record, "jpg_0"),
            b=media_of(record, "jpg_1"),
            choice=choice,
            generator_a=text_of(record, "model_0") or UNKNOWN,
            generator_b=text_of(record, "model_1") or UNKNOWN,
            own="/".join([ranking, *uids]) if ranking else "",
        )

    def write(self, pairs: Iterable[PairWithMedia], folder: Path, *, layout: Layout) -> None:
        """Writes the columns of version 2."""
        with ParquetFiles(folder / "data", SCHEMA, renamed=layout.renamed) as files:
            for values in _written(pairs):
                files.add(values)


def _written(pairs: Iterable[PairWithMedia]) -> Iterator[dict[str, Any]]:
    for number, pair in enumerate(pairs):
        uids = {"a": f"{pair.id}-0", "b": f"{pair.id}-1", "tie": "tie"}
        labels = NUMBERS[pair.choice]
        yield {
            "caption": pair.prompt,
            "jpg_0": pair.a,
            "jpg_1": pair.b,
            "label_0": labels[0],
            "label_1": labels[1],
            "has_label": True,
            "best_image_uid": uids[pair.choice],
            "image_0_uid": uids["a"],
            "image_1_uid": uids["b"],
            "model_0": pair.generator_a,
            "model_1": pair.generator_b,
            "are_different": pair.a != pair.b,
            "ranking_id": number,
        }
