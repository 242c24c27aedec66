"""Draws the README's gallery: base above tuned on held-out captions with identical seeds, of the newest evaluation."""

from __future__ import annotations

import hashlib
import io
import sys
from pathlib import Path

import pyarrow as pa
from PIL import Image, ImageDraw

from infra.store.artifacts import Store
from infra.store.record import read_record
from infra.store.tables import read_verified

TASKS = ("single", "two", "counting", "colours", "position", "attribution")
PER_TASK, SCALE, GAP, MARK = 3, 4, 8, 6
GREEN, RED = (46, 160, 67), (207, 34, 46)


def newest(root: Path) -> pa.Table:
    """Rows of the newest finished evaluation."""
    finished = [(record, d) for d in Store(root).folders("evaluate") if (record := read_record(d))]
    record, directory = max(finished, key=lambda found: found[0].finished)
    return pa.concat_tables([read_verified(directory / file.name, file) for file in record.files])


def chosen(rows: list[dict]) -> list[dict]:
    """Three a task by a hash of the caption: drawn without a look at the outcome."""
    found = []
    for task in TASKS:
        of_task = [row for row in rows if row["task"] == task]
        found += sorted(of_task, key=lambda row: hashlib.sha256(row["text"].encode()).hexdigest())[:PER_TASK]
    return found


def draw(rows: list[dict]) -> Image.Image:
    """Two rows of pictures; the bar below each is green where the checker passes it, red where not."""
    size = 24 * SCALE
    sheet = Image.new("RGB", (len(rows) * (size + GAP) + GAP, 2 * (size + MARK + GAP) + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for column, row in enumerate(rows):
        left = GAP + column * (size + GAP)
        for line, side in enumerate(("base", "tuned")):
            top = GAP + line * (size + MARK + GAP)
            picture = Image.open(io.BytesIO(row[side]["bytes"])).resize((size, size), Image.Resampling.NEAREST)
            sheet.paste(picture, (left, top))
            colour = GREEN if row[f"{side}_strict"] else RED
            pen.rectangle((left, top + size + 1, left + size - 1, top + size + MARK - 1), fill=colour)
    return sheet


def main(root: str = "salon-store", picture: str = ".github/readme/gallery.png") -> None:
    """Writes the picture."""
    draw(chosen(newest(Path(root)).to_pylist())).save(picture, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
