"""Stage `score`: every scorer on every picture or clip; one number per row, as the scorer gave it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field, field_validator

from actors.resident import Resident
from infra.dag.stage import Inputs, Lookup, Places, RowStage, RunInputs, Stage, Worker
from infra.identity import group_of, key_of, row_id
from pipelines.models.scorers.scorer import OpenScorer, Sample, Scorer
from pipelines.schemas.evaluation import Score
from pipelines.stages.prompts import WritePrompts
from pipelines.stages.sources import Pictures, Scored

CELL = ("id", "sample", "scorer", "dimension", "convention", "text", "expectation", "others")


class ScoreWorker:
    """Looks samples up by id and asks one scorer at a time, once per sample for all of its dimensions."""

    def __init__(self, scorers: Sequence[Scorer], samples: Lookup, *, medium: str, resident: int) -> None:
        self.scorers = {scorer.name: scorer for scorer in scorers}
        self.samples = samples
        self.medium: Any = medium
        self.resident = resident

    def open(self, device: str, places: Places) -> None:
        """Scorers load when they are first asked."""
        load = lambda scorer: scorer.open(device, places)  # noqa: E731
        self.opened = Resident(self.scorers.values(), load=load, resident=self.resident)

    def run(self, cells: pa.Table) -> list[Score]:
        """One score per cell, in order; neighbouring cells of one scorer are one batch."""
        scores: list[Score] = []
        for name, rows in groupby(cells.to_pylist(), key=lambda row: row["scorer"]):
            scores += self._ask(name, list(rows))
        return scores

    def _ask(self, name: str, rows: list[dict[str, Any]]) -> Iterator[Score]:
        by_sample = {row["sample"]: row for row in rows}
        others = {sample: row["others"].split() for sample, row in by_sample.items()}
        needed = list(dict.fromkeys([*by_sample, *(each for ids in others.values() for each in ids)]))
        media = self.samples.take(needed, [self.medium])[self.medium].to_pylist()
        files = {sample: file["bytes"] for sample, file in zip(needed, media, strict=True)}
        samples = [
            Sample(files[sample], self.medium, row["text"], row["expectation"], tuple(files[o] for o in others[sample]))
            for sample, row in by_sample.items()
        ]
        opened: OpenScorer = self.opened.get(name)
        values = opened.score(samples)
        dimensions = self.scorers[name].dimensions
        if values.shape != (len(samples), len(dimensions)):
            raise ValueError(f"scorer {name} gave shape {values.shape} for {len(samples)} samples in {dimensions}")
        place = {sample: number for number, sample in enumerate(by_sample)}
        for row in rows:
            value = float(values[place[row["sample"]], dimensions.index(row["dimension"])])
            known = value if math.isfinite(value) else None
            yield Score(row["id"], row["sample"], name, row["dimension"], known, row["convention"])


class ScoreSamples(RowStage, Scored):
    """Pictures or clips in; a row for each (sample, scorer, dimension) out.

    Another scorer, another dimension or more samples add rows; those that are there are kept.
    """

    name: ClassVar = "score"
    row: ClassVar = Score
    in_cells: ClassVar = ("scorers",)

    pictures: Pictures
    "What is scored."
    prompts: WritePrompts | None = None
    "What each prompt asks for, for scorers that check a sample against it."
    scorers: tuple[Scorer, ...]
    shard_rows: int = Field(512, ge=1)
    "Rows per file and per call."

    @field_validator("scorers")
    @classmethod
    def _distinct(cls, scorers: tuple[Scorer, ...]) -> tuple[Scorer, ...]:
        names = [scorer.name for scorer in scorers]
        if not scorers or len(set(names)) != len(names):
            raise ValueError(f"score needs at least one scorer and distinct names, got {names}; change the scorers")
        return scorers

    def cells(self, inputs: Inputs) -> pa.Table:
        """Columns `CELL`: convention is the row's value, others the ids of the sample's group, parted by spaces."""
        expectations: dict[str, str] = {}
        if self.prompts is not None:
            prompts = inputs.table(self.prompts, ["id", "expectation"])
            expectations = dict(zip(prompts["id"].to_pylist(), prompts["expectation"].to_pylist(), strict=True))
        samples = inputs.table(self.pictures, ["id", "prompt_id", "text", "generator"]).to_pylist()
        groups: dict[tuple[str, str], list[str]] = {}
        for sample in samples:
            groups.setdefault((sample["prompt_id"], sample["generator"]), []).append(sample["id"])
        rows = []
        for scorer in self.scorers:
            identity = key_of(scorer)
            for sample in samples:
                # The scorer leads the id, so that a shard needs few models; its prompts' samples lie together.
                group = group_of(scorer.name, sample["prompt_id"])
                expectation = expectations.get(sample["prompt_id"], "")
                beside = sorted(groups[sample["prompt_id"], sample["generator"]]) if scorer.of_group else []
                others = " ".join(each for each in beside if each != sample["id"])
                # What a score depends on is in its id.
                for dimension in scorer.dimensions:
                    parts = (sample["id"], identity, dimension, expectation, *([others] if scorer.of_group else []))
                    name = row_id(group, self.name, self.version, *parts)
                    said = (sample["id"], scorer.name, dimension, scorer.convention, sample["text"], expectation, others)
                    rows.append(dict(zip(CELL, (name, *said), strict=True)))
        return pa.Table.from_pylist(rows, schema=pa.schema([(column, pa.string()) for column in CELL]))

    def cell_count(self, inputs: Inputs) -> int:
        """Each sample in each dimension of each scorer."""
        return inputs.table(self.pictures, ["id"]).num_rows * sum(len(scorer.dimensions) for scorer in self.scorers)

    def reads(self) -> list[Stage]:
        """All samples, where a scorer measures groups of them: another sample then makes all rows anew.

        Give such scorers a stage of their own.
        """
        return [self.pictures] if any(scorer.of_group for scorer in self.scorers) else []

    def looks_up(self) -> dict[str, Stage]:
        """The worker reads the samples by id."""
        return {"sample": self.pictures}

    def worker(self, inputs: RunInputs) -> Worker:
        """All scorers, loaded one by one, and the samples by id."""
        return ScoreWorker(
            self.scorers, inputs.lookup(self.pictures), medium=self.pictures.medium, resident=self.resources.resident
        )
