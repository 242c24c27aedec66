"""The gallery's rows: captions drawn by hash, and the pictures, scores and preferences of those captions alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from infra.store.tables import Image, Video
from pipelines.reporting.data import Gallery, GalleryEntry, GalleryPicture
from pipelines.reporting.pictures import draw

Fetch = Any
"""`RowReader.take`: ids and columns to a table in the order of the ids."""


@dataclass(frozen=True)
class Evaluated:
    """Tables of an evaluation without their pictures."""

    samples: pa.Table  # id, prompt_id, text, generator, sample, seed
    tasks: Mapping[str, str]  # by prompt
    scores: Sequence[pa.Table]  # sample, scorer, dimension, value
    preferences: pa.Table | None  # picture_a, picture_b, choice
    baseline: str
    medium: str


def gallery(evaluated: Evaluated, take: Fetch, *, per_task: int) -> Gallery:
    """The captions that the draw names, by every arm; only their pictures are read."""
    samples = evaluated.samples.to_pylist()
    base = [row for row in samples if row["generator"] == evaluated.baseline]
    listed = [(row["id"], row["text"], evaluated.tasks[row["prompt_id"]], row["sample"]) for row in base]
    chosen = draw(listed, per_task=per_task)
    by_id = {row["id"]: row for row in base}
    keys = [(by_id[name]["prompt_id"], by_id[name]["sample"]) for name in chosen]
    arms: dict[tuple[str, int], list[dict[str, Any]]] = {key: [] for key in keys}
    for row in samples:
        if (row["prompt_id"], row["sample"]) in arms:
            arms[row["prompt_id"], row["sample"]].append(row)
    ids = sorted(row["id"] for rows in arms.values() for row in rows)
    files = take(ids, [evaluated.medium])[evaluated.medium].to_pylist()
    kind = Video if evaluated.medium == "video" else Image
    images = {name: kind(file["bytes"]) for name, file in zip(ids, files, strict=True)}
    scores, preferred = _scores(evaluated.scores, ids), _preferred(evaluated.preferences, ids)
    entries = []
    for rows in arms.values():
        rows.sort(key=lambda row: (row["generator"] != evaluated.baseline, row["generator"]))
        first = rows[0]
        pictures = [
            GalleryPicture(
                arm=row["generator"],
                picture=row["id"],
                image=images[row["id"]],
                scores=scores.get(row["id"], {}),
                preferred=preferred.get((row["id"], first["id"]), ""),
            )
            for row in rows
        ]
        task = evaluated.tasks[first["prompt_id"]]
        entries.append(GalleryEntry(first["text"], task, first["sample"], first["seed"], pictures))
    return Gallery(entries, per_task, len(listed))


def _scores(tables: Sequence[pa.Table], ids: Sequence[str]) -> dict[str, dict[str, float | None]]:
    """Values of the chosen pictures by measure and dimension."""
    found: dict[str, dict[str, float | None]] = {}
    for table in tables:
        rows = table.filter(pc.is_in(table["sample"], pa.array(ids, pa.string()))).to_pylist()
        for row in sorted(rows, key=lambda row: (row["scorer"], row["dimension"])):
            found.setdefault(row["sample"], {})[f"{row['scorer']} {row['dimension']}"] = row["value"]
    return found


def _preferred(table: pa.Table | None, ids: Sequence[str]) -> dict[tuple[str, str], str]:
    """For (one, other) of the chosen pictures: whether the jury prefers `one`."""
    found: dict[tuple[str, str], str] = {}
    if table is not None:
        known = pa.array(ids, pa.string())
        both = pc.and_(pc.is_in(table["picture_a"], known), pc.is_in(table["picture_b"], known))
        for row in table.filter(both).to_pylist():
            a, b, choice = row["picture_a"], row["picture_b"], row["choice"]
            found[a, b] = {"a": "yes", "b": "no"}.get(choice, "tie")
            found[b, a] = {"a": "no", "b": "yes"}.get(choice, "tie")
    return found
