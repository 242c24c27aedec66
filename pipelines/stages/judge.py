"""Stage `judge`: every juror on every pair in both orders; the answers as given, with their scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field, field_validator

from actors.juror import Juror, Verdict
from actors.resident import Resident
from infra.dag.stage import Inputs, Lookup, Places, RowStage, RunInputs, Worker
from infra.identity import group_of, key_of, row_id
from pipelines.miniature.jurors import JurorModel
from pipelines.schemas.votes import Vote
from pipelines.stages.pair import Pairs
from pipelines.stages.render import Render

ORDERS = ("ab", "ba")
IN_TERMS_OF_PAIR = {
    "ab": {"first": "a", "second": "b", "tie": "tie", "unparsable": "unparsable"},
    "ba": {"first": "b", "second": "a", "tie": "tie", "unparsable": "unparsable"},
}


def opened(model: JurorModel) -> Juror:
    """The juror with its model in memory."""
    juror = model.juror()
    juror.open()
    return juror


class Judging:
    """The worker: looks the pictures up, asks one juror at a time. Jurors see the caption and two pictures, no more."""

    def __init__(self, jurors: Sequence[JurorModel], pictures: Lookup, *, resident: int) -> None:
        self.jurors = list(jurors)
        self.pictures = pictures
        self.resident = resident

    def open(self, device: str, places: Places) -> None:
        """Jurors load when first asked."""
        self.models = Resident(self.jurors, load=opened, resident=self.resident)

    def run(self, cells: pa.Table) -> list[Vote]:
        """One vote a cell, in order; neighbouring cells of one juror are one batch."""
        rows = cells.to_pylist()
        ids = sorted({row[side] for row in rows for side in ("picture_a", "picture_b")})
        found = self.pictures.take(ids, ["image"])
        png = {name: image["bytes"] for name, image in zip(ids, found["image"].to_pylist(), strict=True)}
        votes: list[Vote] = []
        start = 0
        while start < len(rows):
            stop = start
            while stop < len(rows) and rows[stop]["juror"] == rows[start]["juror"]:
                stop += 1
            votes += self._ask(rows[start:stop], png)
            start = stop
        return votes

    def _ask(self, rows: list[dict[str, Any]], png: dict[str, bytes]) -> list[Vote]:
        shown = [("picture_a", "picture_b") if row["order"] == "ab" else ("picture_b", "picture_a") for row in rows]
        asked = [(row["text"], png[row[one]], png[row[two]]) for row, (one, two) in zip(rows, shown, strict=True)]
        verdicts = self.models.get(rows[0]["juror"]).judge(asked)
        return [vote_of(row, verdict) for row, verdict in zip(rows, verdicts, strict=True)]


def vote_of(row: dict[str, Any], verdict: Verdict) -> Vote:
    """A verdict in terms of position as a vote in terms of the pair."""
    sign = 1.0 if row["order"] == "ab" else -1.0
    return Vote(
        id=row["id"],
        pair_id=row["pair_id"],
        juror=row["juror"],
        order=row["order"],
        raw=verdict.raw,
        choice=IN_TERMS_OF_PAIR[row["order"]][verdict.choice],
        score=None if verdict.score is None else sign * verdict.score + 0.0,
    )


class Judge(RowStage):
    """Pairs and pictures in; a vote for each (pair, juror, order) out."""

    name: ClassVar = "judge"
    row: ClassVar = Vote

    pairs: Pairs
    pictures: Render
    jury: tuple[JurorModel, ...]
    shard_rows: int = Field(512, ge=1)
    "Rows a file and a call."

    @field_validator("jury")
    @classmethod
    def _distinct(cls, jury: tuple[JurorModel, ...]) -> tuple[JurorModel, ...]:
        names = [juror.name for juror in jury]
        if not jury or len(set(names)) != len(names):
            raise ValueError(f"judge needs at least one juror and distinct names, got {names}; change the jury")
        return jury

    def cells(self, inputs: Inputs) -> pa.Table:
        """Columns id, pair_id, juror, order, text, picture_a, picture_b: never the expectation."""
        columns = ["id", "prompt_id", "text", "picture_a", "picture_b"]
        jurors = {juror.name: key_of(juror) for juror in self.jury}
        rows = []
        for pair in inputs.table(self.pairs, columns).to_pylist():
            for juror, identity in jurors.items():
                group = group_of(juror, pair["prompt_id"])
                for order in ORDERS:
                    rows.append(
                        {
                            "id": row_id(group, self.name, self.version, pair["id"], identity, order),
                            "pair_id": pair["id"],
                            "juror": juror,
                            "order": order,
                            "text": pair["text"],
                            "picture_a": pair["picture_a"],
                            "picture_b": pair["picture_b"],
                        }
                    )
        names = ["id", "pair_id", "juror", "order", "text", "picture_a", "picture_b"]
        return pa.Table.from_pylist(rows, schema=pa.schema([(name, pa.string()) for name in names]))

    def worker(self, inputs: RunInputs) -> Worker:
        """All jurors, loaded one by one, and the pictures by id."""
        return Judging(self.jury, inputs.lookup(self.pictures), resident=self.resources.resident)
