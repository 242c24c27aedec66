"""Draws the README's gallery: base above tuned on held-out captions with identical seeds, of the newest evaluation."""

from __future__ import annotations

import hashlib
import io
import sys
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from infra.config import ConfigError
from infra.store.artifacts import Store
from infra.store.runs import read_runs
from infra.store.views import Database

TASKS = ("single", "two", "counting", "colours", "position", "attribution")
PER_TASK, SCALE, GAP, MARK = 3, 4, 8, 6
GREEN, RED = (46, 160, 67), (207, 34, 46)


QUERY = """
SELECT prompts.task, shown.text, shown.generator = arms.baseline AS is_base,
       shown.image.bytes AS png, score.value = 1 AS passed
FROM render_media AS shown
JOIN prompts ON prompts.id = shown.prompt_id
JOIN score ON score.sample = shown.id AND score.scorer = 'checker' AND score.dimension = 'strict'
JOIN (SELECT DISTINCT arm, baseline FROM evaluate) AS arms ON shown.generator IN (arms.arm, arms.baseline)
"""
"""Every scored picture of the base and of the tuned generator."""


def newest(root: Path) -> list[dict[str, Any]]:
    """Captions of the newest evaluation with both pictures: task, text, and for each side its PNG and whether it passed."""
    store = Store(root)
    evaluated = [run for run in read_runs(store).readable if any(one["stage"] == "evaluate" for one in run["stages"])]
    if not evaluated:
        raise ConfigError(f"{store.root} holds no evaluation; run one first: salon run miniature --root {store.root}")
    names, rows = Database(store, evaluated[-1:]).query(QUERY)
    captions: dict[str, dict[str, Any]] = {}
    for row in (dict(zip(names, values, strict=True)) for values in rows):
        side = "base" if row["is_base"] else "tuned"
        caption = captions.setdefault(row["text"], {"task": row["task"], "text": row["text"]})
        caption |= {side: row["png"], f"{side}_passed": row["passed"]}
    return list(captions.values())


def chosen(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Three per task by a hash of the caption: drawn without a look at the outcome."""
    found = []
    for task in TASKS:
        of_task = [row for row in rows if row["task"] == task]
        found += sorted(of_task, key=lambda row: hashlib.sha256(row["text"].encode()).hexdigest())[:PER_TASK]
    return found


def draw(rows: list[dict[str, Any]]) -> Image.Image:
    """Two rows of pictures; the bar below each is green where the checker passes it, red where not."""
    size = 24 * SCALE
    sheet = Image.new("RGB", (len(rows) * (size + GAP) + GAP, 2 * (size + MARK + GAP) + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for column, row in enumerate(rows):
        left = GAP + column * (size + GAP)
        for line, side in enumerate(("base", "tuned")):
            top = GAP + line * (size + MARK + GAP)
            picture = Image.open(io.BytesIO(row[side])).resize((size, size), Image.Resampling.NEAREST)
            sheet.paste(picture, (left, top))
            colour = GREEN if row[f"{side}_passed"] else RED
            pen.rectangle((left, top + size + 1, left + size - 1, top + size + MARK - 1), fill=colour)
    return sheet


def main(root: str = "salon-store", picture: str = ".github/readme/gallery.png") -> None:
    """Writes the picture."""
    draw(chosen(newest(Path(root)))).save(picture, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
