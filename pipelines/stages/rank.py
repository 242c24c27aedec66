"""Stage `rank`: jurors rank several pictures of a prompt in one question; stage `ranked_votes`: what they say of pairs.

The sets are chosen such that every pair of stage `pair` lies in one. Each set is shown in an order drawn by hash and in the
reverse order, so of two pictures each is once shown before the other, as in stage `judge`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from infra.config import ConfigError
from infra.dag.stage import Context, Inputs, RowStage, RunInputs, Stage, TableStage, Worker
from infra.identity import group_of, key_of, row_id, seed_of
from pipelines.algorithms.pairing.covering import covering_sets
from pipelines.algorithms.prompting.ranking import MOST
from pipelines.models.jurors.juror import Juror, OpenRankingJuror, RankingCase, RankingOpinion
from pipelines.schemas.votes import Pair, RankingAnswer, Vote
from pipelines.stages.judge import Judge, JuryWorker
from pipelines.stages.pair import PairSamples
from pipelines.stages.sources import Pictures, Votes

PLACES = tuple(f"picture_{place}" for place in range(1, MOST + 1))
"""Columns of the cells: the picture at each place of a question, null where there are fewer."""
COLUMNS = ("id", "prompt_id", "juror", "order", "text", *PLACES)


class RankWorker(JuryWorker):
    """A juror sees the prompt and up to eight pictures, no more."""

    def run(self, cells: pa.Table) -> list[RankingAnswer | Exception]:
        """One answer for each cell, in order."""
        rows = cells.to_pylist()
        shown = [[row[place] for place in PLACES if row[place] is not None] for row in rows]
        media = self.media(name for names in shown for name in names)
        asked: dict[str, list[int]] = {}
        for place, row in enumerate(rows):
            asked.setdefault(row["juror"], []).append(place)
        answers: dict[int, RankingAnswer | Exception] = {}
        for juror, places in asked.items():
            cases = [RankingCase(rows[p]["text"], tuple(media[name] for name in shown[p])) for p in places]
            opened = self.opened.get(juror)
            if not isinstance(opened, OpenRankingJuror):
                raise TypeError(f"juror {juror} says that it ranks, and does not")
            for place, said in zip(places, opened.rank(cases), strict=True):
                answers[place] = self._answer(rows[place], shown[place], said)
        return [answers[place] for place in range(len(rows))]

    @staticmethod
    def _answer(row: dict[str, str], shown: list[str], said: RankingOpinion | Exception) -> RankingAnswer | Exception:
        if isinstance(said, Exception):
            return said
        given = {name: row[name] for name in ("id", "prompt_id", "juror", "order")}
        return RankingAnswer(**given, pictures=shown, raw=said.raw, ranks=list(said.ranks or ()))


class Rank(RowStage):
    """Pairs and pictures in; a ranking for each (set of a prompt's pictures, juror, order) out."""

    name: ClassVar = "rank"
    row: ClassVar = RankingAnswer
    in_cells: ClassVar = ("jury", "most", "orders", "seed")

    pairs: PairSamples
    pictures: Pictures
    jury: tuple[Juror, ...]
    most: int = Field(MOST, ge=2, le=MOST)
    "Pictures in one question at most."
    orders: int = Field(1, ge=1, le=8)
    "Orders in which each set is shown, each with its reverse; a small set has fewer."
    seed: int = Field(0, ge=0)
    "Seed of the orders."
    shard_rows: int = Field(128, ge=1)
    "Rows per file and per call of a worker."

    @field_validator("jury")
    @classmethod
    def _ranking(cls, jury: tuple[Juror, ...]) -> tuple[Juror, ...]:
        names = [juror.name for juror in jury]
        if not jury or len(set(names)) != len(names):
            raise ValueError(f"rank needs at least one juror and distinct names, got {names}; change the jury")
        if other := [juror.name for juror in jury if not juror.ranks]:
            raise ConfigError(f"rank: juror {other[0]} does not rank; give it a questionnaire of kind ranking")
        return jury

    def cells(self, inputs: Inputs) -> pa.Table:
        """Which pictures are shown, in which order; never who made them."""
        by_prompt: dict[str, list[dict[str, str]]] = {}
        for pair in inputs.table(self.pairs, ["prompt_id", "text", "picture_a", "picture_b"]).to_pylist():
            by_prompt.setdefault(pair["prompt_id"], []).append(pair)
        asked = [(juror.name, key_of(juror)) for juror in self.jury]
        rows = []
        for prompt_id, pairs in sorted(by_prompt.items()):
            for chosen in covering_sets([(pair["picture_a"], pair["picture_b"]) for pair in pairs], most=self.most):
                for order, shown in orders_of(chosen, count=self.orders, seed=self.seed).items():
                    padded = (*shown, *(None,) * (MOST - len(shown)))
                    for juror, identity in asked:
                        group = group_of(juror, prompt_id)
                        name = row_id(group, self.name, self.version, identity, prompt_id, *shown)
                        rows.append((name, prompt_id, juror, order, pairs[0]["text"], *padded))
        columns = zip(*rows, strict=True) if rows else ((),) * len(COLUMNS)
        return pa.table([pa.array(values, pa.string()) for values in columns], names=list(COLUMNS))

    def looks_up(self) -> dict[str, Stage]:
        """The worker reads the pictures by id."""
        return dict.fromkeys(PLACES, self.pictures)

    def worker(self, inputs: RunInputs) -> Worker:
        """All jurors, loaded one by one, and the pictures by id."""
        pictures = inputs.lookup(self.pictures)
        return RankWorker(self.jury, pictures, medium=self.pictures.medium, resident=self.resources.resident)


def orders_of(chosen: Sequence[str], *, count: int, seed: int) -> dict[str, tuple[str, ...]]:
    """Orders drawn by hash by their names, each followed by its reverse; none occurs twice."""
    found: dict[str, tuple[str, ...]] = {}
    for number in range(1, count + 1):
        generator = np.random.default_rng(seed_of("ranking", seed, number, *chosen))
        shown = tuple(chosen[int(place)] for place in generator.permutation(len(chosen)))
        if shown not in found.values():
            found[str(number)] = shown
            found[f"{number} reversed"] = tuple(reversed(shown))
    return found


class RankedVotes(TableStage, Votes):
    """Rankings in, and the votes of jurors that compare pairs; the votes of all of them out.

    A ranking is a vote on every pair of its set: for the picture of the better rank, a tie for equal ranks, unparsable
    where the ranking is. These votes carry no score.
    """

    name: ClassVar = "ranked_votes"

    pairs: PairSamples
    rankings: Rank
    judged: Judge | None = None
    "Votes of the jury's other members on the same pairs."

    @model_validator(mode="after")
    def _distinct(self) -> RankedVotes:
        names = [juror.name for juror in self.jurors]
        if len(set(names)) != len(names):
            raise ConfigError(f"ranked_votes: two jurors have one name ({', '.join(names)}); give each its own")
        return self

    @property
    def jurors(self) -> tuple[Juror, ...]:
        """Those who rank, and those who compare pairs."""
        return (*self.rankings.jury, *(self.judged.jury if self.judged else ()))

    def run(self, context: Context) -> Iterator[Vote]:
        """The votes on pairs as they are, then those of the rankings."""
        if self.judged is not None:
            yield from context.rows(self.judged)
        pairs: dict[str, list[Pair]] = {}
        for pair in context.rows(self.pairs):
            pairs.setdefault(pair.prompt_id, []).append(pair)
        for answer in context.rows(self.rankings):
            yield from votes_of(answer, pairs[answer.prompt_id])


def votes_of(answer: RankingAnswer, pairs: Sequence[Pair]) -> Iterator[Vote]:
    """What a ranking says of those pairs of its prompt both of whose pictures it ranks."""
    place = {name: number for number, name in enumerate(answer.pictures)}
    for pair in pairs:
        if pair.picture_a not in place or pair.picture_b not in place:
            continue
        a, b = place[pair.picture_a], place[pair.picture_b]
        choice = "unparsable"
        if answer.ranks:
            lead = answer.ranks[b] - answer.ranks[a]
            choice = "a" if lead > 0 else "b" if lead < 0 else "tie"
        yield Vote(
            id=row_id(pair.prompt_id, "ranked_votes", pair.id, answer.id),
            pair_id=pair.id,
            juror=answer.juror,
            order="ab" if a < b else "ba",
            raw=answer.id,
            choice=choice,
            score=None,
        )
