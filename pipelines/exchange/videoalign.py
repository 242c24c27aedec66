"""VideoAlign's training data (Liu et al., 2025): a CSV file beside a folder of clips, with one label per dimension.

path_A, path_B, prompt; VQ, MQ, TA and, where it is there, Overall: A, B or same; fps_A, num_frames_A, fps_B,
num_frames_B; A_model, B_model (of VideoGen-RewardBench). Each dimension is a margin of +1, -1 or 0; an empty field
means that the dimension was not judged. The pair's choice is Overall, or the sign of the dimensions' sum.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

from actors.media import clip_timing
from pipelines.exchange.files import MediaFiles, called
from pipelines.exchange.pairs import UNKNOWN, BadRow, Layout, PairWithMedia, Row, decided
from pipelines.exchange.records import Records, SourceRecord, media_of, text_of

DIMENSIONS = ("VQ", "MQ", "TA")
OVERALL = "Overall"
MARGINS = {"A": 1.0, "B": -1.0, "same": 0.0}
CHOICES = {1.0: "a", -1.0: "b", 0.0: "tie"}
WORDS = {"a": "A", "b": "B", "tie": "same"}
TIMING = ("fps_A", "num_frames_A", "fps_B", "num_frames_B")


class VideoAlign(Records):
    """VideoAlign's CSV file, as the module describes it."""

    name: ClassVar = "videoalign"
    holds: ClassVar = ("video",)
    silent: ClassVar = "agreement, scores, dimensions but VQ, MQ and TA, and how large a margin is"
    columns: ClassVar = ("id", "path_A", "path_B", "prompt", *DIMENSIONS, OVERALL, *TIMING, "A_model", "B_model")
    endings: ClassVar = (".csv",)
    required: ClassVar = ("path_A", "path_B", "prompt")

    def pairs(self, record: SourceRecord) -> Iterable[Row]:
        """One pair per record."""
        margins: dict[str, float] = {}
        for name in (*DIMENSIONS, OVERALL):
            said = text_of(record, name)
            if said and said not in MARGINS:
                raise BadRow(f"{name} {said!r} is none of A, B, same")
            if said:
                margins[name] = MARGINS[said]
        if not margins:
            raise BadRow(f"it has no label: {', '.join((*DIMENSIONS, OVERALL))} are all empty")
        overall = margins.pop(OVERALL, None)
        yield Row(
            place=record.place,
            number=record.number,
            prompt=text_of(record, "prompt"),
            a=media_of(record, "path_A"),
            b=media_of(record, "path_B"),
            choice=decided(sum(margins.values()), 0.0) if overall is None else CHOICES[overall],
            generator_a=text_of(record, "A_model") or UNKNOWN,
            generator_b=text_of(record, "B_model") or UNKNOWN,
            margins=margins,
            own=text_of(record, "id"),
        )

    def writes(self, column: str) -> bool:
        """True for every column but the id."""
        return column != "id" and self.knows(column)

    def write(self, pairs: Iterable[PairWithMedia], folder: Path, *, layout: Layout) -> None:
        """Writes the CSV file and the clips; a dimension without a margin stays empty."""
        clips = MediaFiles(folder, "videos")
        with (folder / "data.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, [layout.renamed.get(name, name) for name in self.columns if self.writes(name)])
            writer.writeheader()
            for pair in pairs:
                writer.writerow(called(_written(pair, clips), layout.renamed))


def _written(pair: PairWithMedia, clips: MediaFiles) -> dict[str, Any]:
    said = {name: WORDS[decided(pair.margins[name], 0.0)] for name in DIMENSIONS if name in pair.margins}
    timing = [value for data in (pair.a, pair.b) for value in clip_timing(data)]
    return {
        "path_A": clips.add(pair.a),
        "path_B": clips.add(pair.b),
        "prompt": pair.prompt,
        **said,
        OVERALL: WORDS[pair.choice],
        **dict(zip(TIMING, timing, strict=True)),
        "A_model": pair.generator_a,
        "B_model": pair.generator_b,
    }
