"""Human Preference Dataset v2 (Wu et al., 2023) and v3 (Ma et al., 2025): JSON lists beside folders of pictures.

v2: prompt, image_path (a list), and human_preference (1 for the preferred of two) or rank (one per picture, 1 is best;
every two pictures of a ranking are a pair). v3: prompt, path1 (the preferred one), path2, confidence, choice_dist (the
votes for each), model1, model2. Paths are relative to the JSON file, to the root, to a folder named like the file
(`train/` for train.json) or to `images/`. The written form is v3.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar

from pipelines.exchange.files import JsonList, MediaFiles
from pipelines.exchange.pairs import UNKNOWN, BadRow, Layout, Media, PairWithMedia, Row, decided
from pipelines.exchange.records import Records, SourceRecord, media_of, number_of, text_of

V3 = ("path1", "path2")
WRITTEN = ("prompt", "choice_dist", "confidence", *V3, "model1", "model2")


class HPD(Records):
    """Both versions, as the module describes them."""

    name: ClassVar = "hpd"
    holds: ClassVar = ("image",)
    ties: ClassVar = False
    silent: ClassVar = "ties, scores, margins by dimension, and which picture was shown first"
    columns: ClassVar = (
        *("id", "prompt", "image_path", "human_preference", "rank"),
        *("path1", "path2", "confidence", "choice_dist", "model1", "model2"),
    )
    endings: ClassVar = (".json", ".jsonl")
    required: ClassVar = ("prompt",)

    def pairs(self, record: SourceRecord) -> Iterable[Row]:
        """One pair per record, or one per two pictures of a ranking."""
        if any(record.values.get(name) is not None for name in V3):
            return [self._third(record)]
        if record.values.get("image_path") is None:
            raise BadRow(f"it has neither path1 and path2 nor image_path; it has {', '.join(record.values)}")
        return self._second(record)

    def _third(self, record: SourceRecord) -> Row:
        for name in V3:
            if record.values.get(name) is None:
                raise BadRow(f"key {name!r} is missing; it has {', '.join(record.values)}")
        votes = record.values.get("choice_dist") or []
        choice, confidence = "a", number_of(record, "confidence")
        if votes:
            if not _numbers(votes) or len(votes) != 2 or sum(votes) <= 0:
                raise BadRow(f"choice_dist {votes!r} does not hold the votes for two pictures")
            choice = decided(*votes)
            if choice == "b":
                raise BadRow(f"path1 must be the preferred picture, but choice_dist is {votes}")
            confidence = votes[0] / sum(votes)
        return Row(
            place=record.place,
            number=record.number,
            prompt=text_of(record, "prompt"),
            a=media_of(record, "path1"),
            b=media_of(record, "path2"),
            choice=choice,
            agreement=1.0 if confidence is None else confidence,
            generator_a=text_of(record, "model1") or UNKNOWN,
            generator_b=text_of(record, "model2") or UNKNOWN,
            own=text_of(record, "id"),
        )

    def _second(self, record: SourceRecord) -> list[Row]:
        paths, own = record.values["image_path"], text_of(record, "id")
        if not isinstance(paths, list) or len(paths) < 2 or not all(isinstance(path, str) and path for path in paths):
            raise BadRow(f"image_path {paths!r} does not name two pictures")
        strengths = self._strengths(record, len(paths))
        return [
            Row(
                place=record.place,
                number=record.number,
                prompt=text_of(record, "prompt"),
                a=Media(path=paths[one]),
                b=Media(path=paths[other]),
                choice=decided(strengths[one], strengths[other]),
                own=f"{own}/{one}/{other}" if own else "",
            )
            for one, other in combinations(range(len(paths)), 2)
        ]

    @staticmethod
    def _strengths(record: SourceRecord, count: int) -> list[float]:
        """One number per picture; higher is better."""
        preferred, ranks = (record.values.get(name) for name in ("human_preference", "rank"))
        given = preferred if preferred is not None else ranks
        name = "human_preference" if preferred is not None else "rank"
        if given is None:
            raise BadRow("it has neither human_preference nor rank")
        if not _numbers(given) or len(given) != count:
            raise BadRow(f"{name} {given!r} does not hold one number for each of {count} pictures")
        if preferred is not None and not all(0 <= value <= 1 for value in given):
            raise BadRow(f"human_preference {given!r} must be 1 and 0, 0 and 1, or 0.5 and 0.5")
        return list(given) if preferred is not None else [-value for value in given]

    def writes(self, column: str) -> bool:
        """True for the columns of version 3."""
        return column in WRITTEN

    def write(self, pairs: Iterable[PairWithMedia], folder: Path, *, layout: Layout) -> None:
        """Writes version 3, the winner as path1."""
        pictures = MediaFiles(folder, "images")
        with JsonList(folder / "train.json", renamed=layout.renamed) as out:
            for pair in pairs:
                sides = [(pair.a, pair.generator_a), (pair.b, pair.generator_b)]
                (winner, best), (loser, other) = sides if pair.choice == "a" else sides[::-1]
                out.add(
                    {
                        "prompt": pair.prompt,
                        "choice_dist": None,
                        "confidence": pair.agreement,
                        "path1": pictures.add(winner),
                        "path2": pictures.add(loser),
                        "model1": best,
                        "model2": other,
                    }
                )


def _numbers(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, int | float) and value == value for value in values)
