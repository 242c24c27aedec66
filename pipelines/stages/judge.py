"""Stage `judge`: every juror on every pair in both orders and every dimension; the answers as given, with their scores."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field, field_validator

from actors.resident import Resident
from infra.dag.stage import Inputs, Lookup, Places, RowStage, RunInputs, Stage, Worker
from infra.identity import group_of, key_of, row_id
from pipelines.algorithms.prompting.opinion import Opinion
from pipelines.models.jurors.juror import Case, Juror
from pipelines.schemas.votes import Vote
from pipelines.stages.pair import PairSamples
from pipelines.stages.sources import Pictures, Votes

ORDERS = ("ab", "ba")
IN_TERMS_OF_PAIR = {
    "ab": {"first": "a", "second": "b", "tie": "tie", "unparsable": "unparsable"},
    "ba": {"first": "b", "second": "a", "tie": "tie", "unparsable": "unparsable"},
}
COLUMNS = ("id", "pair_id", "juror", "order", "dimension", "text", "picture_a", "picture_b")


class JuryWorker:
    """Looks pictures or clips up and asks one juror at a time."""

    def __init__(self, jurors: Sequence[Juror], pictures: Lookup, *, medium: str, resident: int) -> None:
        self.jurors = list(jurors)
        self.pictures = pictures
        self.medium = medium
        self.resident = resident

    def open(self, device: str, places: Places) -> None:
        """Nothing is loaded yet: jurors load when they are first asked."""
        self.opened = Resident(self.jurors, load=lambda juror: juror.open(device, places), resident=self.resident)

    def media(self, ids: Iterable[str]) -> dict[str, bytes]:
        """The files of these pictures or clips by id."""
        names = sorted(set(ids))
        found = self.pictures.take(names, [self.medium])
        return {name: file["bytes"] for name, file in zip(names, found[self.medium].to_pylist(), strict=True)}


class JudgeWorker(JuryWorker):
    """A juror sees the prompt and two pictures, no more."""

    def run(self, cells: pa.Table) -> list[Vote | Exception]:
        """One vote for each cell, in order; cells of one pair and order in several dimensions are asked as one case."""
        rows = cells.to_pylist()
        media = self.media(row[side] for row in rows for side in ("picture_a", "picture_b"))
        cases: dict[str, dict[tuple[str, str], Case]] = {}
        for row in rows:
            one, two = (row[f"picture_{side}"] for side in row["order"])
            cases.setdefault(row["juror"], {})[row["pair_id"], row["order"]] = Case(row["text"], media[one], media[two])
        opinions: dict[tuple[str, str, str], tuple[Opinion, ...] | Exception] = {}
        for juror, asked in cases.items():
            heard = self.opened.get(juror).judge(list(asked.values()))
            opinions |= {(juror, *case): said for case, said in zip(asked, heard, strict=True)}
        return [vote_of(row, opinions[row["juror"], row["pair_id"], row["order"]]) for row in rows]


def vote_of(row: Mapping[str, Any], opinions: tuple[Opinion, ...] | Exception) -> Vote | Exception:
    """The opinion of the row's dimension, in terms of position, as a vote in terms of the pair.

    A score that is not a number makes the answer unparsable: the model broke down, and its choice means nothing.
    """
    if isinstance(opinions, Exception):
        return opinions
    opinion = next((one for one in opinions if one.dimension == row["dimension"]), None)
    if opinion is None or opinion.choice is None:
        return ValueError(f"juror {row['juror']!r} gave no choice in dimension {row['dimension']!r}")
    broken = opinion.choice == "unparsable" or (opinion.score is not None and math.isnan(opinion.score))
    sign = 1.0 if row["order"] == "ab" else -1.0
    return Vote(
        id=row["id"],
        pair_id=row["pair_id"],
        juror=row["juror"],
        order=row["order"],
        raw=opinion.raw,
        choice="unparsable" if broken else IN_TERMS_OF_PAIR[row["order"]][opinion.choice],
        score=None if broken or opinion.score is None else sign * opinion.score + 0.0,
        dimension=row["dimension"],
    )


class Judge(RowStage, Votes):
    """Pairs and pictures in; a vote for each (pair, juror, order, dimension) out."""

    name: ClassVar = "judge"
    version: ClassVar = 2
    row: ClassVar = Vote
    in_cells: ClassVar = ("jury",)

    pairs: PairSamples
    pictures: Pictures
    jury: tuple[Juror, ...]
    shard_rows: int = Field(512, ge=1)
    "Rows per file and per call of a worker."

    @field_validator("jury")
    @classmethod
    def _distinct(cls, jury: tuple[Juror, ...]) -> tuple[Juror, ...]:
        names = [juror.name for juror in jury]
        if not jury or len(set(names)) != len(names):
            raise ValueError(f"judge needs at least one juror and distinct names, got {names}; change the jury")
        return jury

    @property
    def jurors(self) -> tuple[Juror, ...]:
        """The jury."""
        return self.jury

    def cells(self, inputs: Inputs) -> pa.Table:
        """What a juror is shown, and never what a checker would ask for."""
        columns = ["id", "prompt_id", "text", "picture_a", "picture_b"]
        asked = [
            (juror.name, key_of(juror), order, dimension)
            for juror in self.jury
            for order in ORDERS
            for dimension in juror.dimensions
        ]
        rows = []
        for pair in inputs.table(self.pairs, columns).to_pylist():
            for juror, identity, order, dimension in asked:
                group = group_of(juror, pair["prompt_id"])
                name = row_id(group, self.name, self.version, pair["id"], identity, order, dimension)
                shown = (pair["text"], pair["picture_a"], pair["picture_b"])
                rows.append((name, pair["id"], juror, order, dimension, *shown))
        columns = zip(*rows, strict=True) if rows else ((),) * len(COLUMNS)
        return pa.table([pa.array(values, pa.string()) for values in columns], names=list(COLUMNS))

    def cell_count(self, inputs: Inputs) -> int:
        """Each pair by each juror in both orders, in each of the juror's dimensions."""
        asked = len(ORDERS) * sum(len(juror.dimensions) for juror in self.jury)
        return asked * inputs.table(self.pairs, ["id"]).num_rows

    def looks_up(self) -> dict[str, Stage]:
        """The worker reads the pictures by id."""
        return {"picture_a": self.pictures, "picture_b": self.pictures}

    def worker(self, inputs: RunInputs) -> Worker:
        """All jurors, loaded one by one, and the pictures by id."""
        pictures = inputs.lookup(self.pictures)
        return JudgeWorker(self.jury, pictures, medium=self.pictures.medium, resident=self.resources.resident)
