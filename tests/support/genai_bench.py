"""Real votes and people on the image pairs of GenAI-Bench, from `shared/data` beside the checkout where it is there."""

import json
from pathlib import Path

import numpy as np

from pipelines.algorithms.voting.ballots import Answers, answers

READABLE = {"[[A>B]]": "a", "[[B>A]]": "b", "[[A=B=Good]]": "tie", "[[A=B=Bad]]": "tie"}
PEOPLE = {"leftvote": 0, "rightvote": 1, "tievote": 2, "bothbad_vote": 2}


def folder() -> Path | None:
    """The data beside this checkout, or beside the folder that it is a worktree in."""
    root = Path(__file__).resolve().parents[2]
    found = [above / "shared" / "data" for above in root.parents[:2]]
    return next((one for one in found if (one / "genai_bench_image_votes.jsonl").exists()), None)


def votes() -> Answers:
    """Eleven vision-language judges on 1,735 pairs, each pair shown in one order."""
    rows = _rows("votes")
    return answers(
        [f"{row['idx']:04d}" for row in rows],
        juror=[row["juror"] for row in rows],
        order=["ab"] * len(rows),
        choice=[READABLE.get((row["answer"] or "").replace(" ", ""), "unparsable") for row in rows],
    )


def people() -> np.ndarray:
    """int8[pairs]: what one person said of each pair; both bad is a tie."""
    rows = sorted(_rows("humans"), key=lambda row: row["idx"])
    return np.array([PEOPLE[row["human_vote"]] for row in rows], dtype=np.int8)


def _rows(name: str) -> list[dict]:
    place = folder()
    assert place is not None, "ask folder() first"
    return [json.loads(line) for line in (place / f"genai_bench_image_{name}.jsonl").read_text().splitlines()]
