"""Stage `label`: votes to preferences, with ties and agreement, and the audit of every juror."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Annotated, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int8
from pydantic import Field, field_validator, model_validator

from infra.config import ConfigError
from infra.dag.stage import Context, Inputs, TableStage
from pipelines.algorithms.prompting.opinion import OVERALL
from pipelines.algorithms.voting.audit import audit
from pipelines.algorithms.voting.ballots import CHOICES, NOTHING, Answers, Consistency, answers, ballots
from pipelines.algorithms.voting.calibrated import CalibratedJury
from pipelines.algorithms.voting.dawid_skene import DawidSkene
from pipelines.algorithms.voting.panel import Majority, Unanimous, Verdicts
from pipelines.schemas.votes import DimensionMargin, JurorStatistics, Preference
from pipelines.stages.human_labels import choices_of_people
from pipelines.stages.pair import PairSamples
from pipelines.stages.sources import Labels, Pictures, Votes

Panel = Annotated[Majority | Unanimous | DawidSkene | CalibratedJury, Field(discriminator="kind")]


SIGNS = {"a": 1.0, "tie": 0.0, "b": -1.0}


@dataclass(frozen=True)
class JudgedPair:
    """The panel's choice on one pair; fields as in `Preference`."""

    choice: str
    agreement: float
    probability: float | None
    score: float
    votes_a: int
    votes_b: int
    votes_tie: int
    votes_unparsable: int


@dataclass(frozen=True)
class JudgedDimension:
    """All votes in one dimension, and what the panel makes of them."""

    given: Answers
    ballots: Int8[np.ndarray, "pairs jurors"]
    verdicts: Verdicts
    scores: Mapping[str, float]
    """Mean log-odds by pair."""

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.given.pair_ids)}

    def of(self, pair_id: str) -> JudgedPair | None:
        """The choice on one pair; None where it has no vote."""
        place = self._places.get(pair_id)
        if place is None:
            return None
        found = self.verdicts
        probability = None if found.probability is None else float(found.probability[place])
        return JudgedPair(
            choice=CHOICES[int(found.choice[place])],
            agreement=float(found.agreement[place]),
            probability=None if probability is None or math.isnan(probability) else probability,
            score=self.scores[pair_id],
            **{f"votes_{name}": int(found.counts[place, code]) for code, name in enumerate(CHOICES)},
        )

    def audit(self, dimension: str) -> list[JurorStatistics]:
        """One row per juror."""
        return [JurorStatistics(**asdict(one), dimension=dimension) for one in audit(self.given, ballots=self.ballots)]


class Label(TableStage, Labels):
    """Votes in; one preference per judged pair out, and a margin per pair and dimension."""

    name: ClassVar = "label"
    version: ClassVar = 2
    row: ClassVar = Preference
    tables: ClassVar[Mapping[str, type]] = {"jurors": JurorStatistics, **Labels.tables}

    pairs: PairSamples
    votes: Votes
    "The jurors' votes on these pairs: compared two by two, or read off rankings."
    consistency: Consistency = Consistency()
    "What the two answers of a juror to the two orders come to."
    panel: Panel = Majority()
    "How the ballots of the jurors become one choice."
    truth: Labels | None = None
    "Labels of people on some of the pairs, from which the panel `calibrated` learns how far each juror is to be believed."
    dimension: str = OVERALL
    "The dimension whose choice is the preference, where `weights` are not given."
    weights: dict[str, float] = Field(default_factory=dict[str, float])
    "Weight of each dimension: the preference is the sign of the weighted sum of their choices, an exact 0 a tie."

    @field_validator("weights")
    @classmethod
    def _usable(cls, weights: dict[str, float]) -> dict[str, float]:
        if weights and not (all(value >= 0 for value in weights.values()) and sum(weights.values()) > 0):
            raise ValueError(f"weights of dimensions must be at least 0 and not all 0, got {weights}")
        return weights

    @model_validator(mode="after")
    def _calibratable(self) -> Label:
        if isinstance(self.panel, CalibratedJury) != (self.truth is not None):
            raise ConfigError(
                "label: the panel `calibrated` and labels of people, `truth`, need one another; give both, for instance "
                "labels from `import_labels`, or leave both out"
            )
        return self

    @property
    def shown(self) -> Pictures:
        """The pictures of the pairs."""
        return self.pairs.pictures

    @property
    def has_probability(self) -> bool:
        """Where the jury was calibrated and one dimension decides."""
        return isinstance(self.panel, CalibratedJury) and not self.weights

    def run(self, context: Context) -> Iterator[Preference]:
        """Preferences in the order of the pairs; a pair without a vote in the deciding dimension has none."""
        votes = context.table(self.votes, ["pair_id", "juror", "order", "choice", "score", "dimension"])
        names = sorted(set(votes["dimension"].to_pylist()))
        needed = sorted(self.weights) or [self.dimension]
        if votes.num_rows and not set(needed) <= set(names):
            raise ConfigError(
                f"label needs votes in {', '.join(needed)}, got {', '.join(names)}; change dimension or weights"
            )
        people = {} if self.truth is None else choices_of_people(context, self.pairs, self.truth)
        if self.truth is not None and (missing := sorted(set(names) - set(people))):
            raise ConfigError(
                f"label: jurors vote in {', '.join(missing)}, where people have labelled nothing; label it, or leave it "
                "out of the jury's questionnaires"
            )
        judged = {
            name: self._judged(votes.filter(pc.equal(votes["dimension"], name)), people.get(name, {})) for name in names
        }
        context.emit("jurors", [row for name in names for row in judged[name].audit(name)])
        context.emit("dimensions", self._margins(judged))
        decided = 0
        for pair in context.rows(self.pairs):
            found = [judged[name].of(pair.id) for name in needed if name in judged]
            if not found or any(one is None for one in found):
                continue
            said = self._combined({name: one for name, one in zip(needed, found, strict=True) if one is not None})
            decided += said.choice != "tie"
            yield Preference(
                id=pair.id,
                prompt_id=pair.prompt_id,
                text=pair.text,
                picture_a=pair.picture_a,
                picture_b=pair.picture_b,
                generator_a=pair.generator_a,
                generator_b=pair.generator_b,
                **asdict(said),
            )
        context.metric("decided_pairs", decided)

    def _judged(self, votes: pa.Table, people: Mapping[str, str]) -> JudgedDimension:
        """The panel's choices in one dimension; `people`: theirs, by pair."""
        columns = {name: votes[name].to_pylist() for name in ("pair_id", "juror", "order", "choice", "score")}
        given = answers(columns["pair_id"], juror=columns["juror"], order=columns["order"], choice=columns["choice"])
        said = ballots(given, options=self.consistency)
        scores = mean_scores(columns["pair_id"], columns["juror"], columns["score"])
        if isinstance(self.panel, CalibratedJury):
            truth = [CHOICES.index(people[pair]) if pair in people else NOTHING for pair in given.pair_ids]
            calibration = self.panel.fit(given, truth=np.array(truth, dtype=np.int8), ballots=said)
            return JudgedDimension(given, said, calibration.verdicts(given, ballots=said), scores)
        return JudgedDimension(given, said, self.panel.verdicts(said), scores)

    @staticmethod
    def _margins(judged: Mapping[str, JudgedDimension]) -> Iterator[DimensionMargin]:
        for name, dimension in judged.items():
            for pair_id, choice in zip(dimension.given.pair_ids, dimension.verdicts.choice.tolist(), strict=True):
                yield DimensionMargin(pair_id, name, SIGNS[CHOICES[choice]])

    def _combined(self, found: Mapping[str, JudgedPair]) -> JudgedPair:
        """The deciding dimension as it is, or the weighted sum of several: agreement is the weight behind its sign."""
        if not self.weights:
            return found[self.dimension]
        total = sum(self.weights.values())
        lead = math.fsum(weight * SIGNS[found[name].choice] for name, weight in self.weights.items())
        choice = "tie" if abs(lead) < 1e-12 * total else "a" if lead > 0 else "b"
        behind = math.fsum(weight for name, weight in self.weights.items() if found[name].choice == choice)
        return JudgedPair(
            choice=choice,
            agreement=behind / total,
            probability=None,
            score=math.fsum(weight * found[name].score for name, weight in self.weights.items()) / total,
            votes_a=sum(one.votes_a for one in found.values()),
            votes_b=sum(one.votes_b for one in found.values()),
            votes_tie=sum(one.votes_tie for one in found.values()),
            votes_unparsable=sum(one.votes_unparsable for one in found.values()),
        )

    def expected_rows(self, inputs: Inputs) -> int:
        """One preference per judged pair."""
        return inputs.table(self.pairs, ["id"]).num_rows


def mean_scores(pair_ids: list[str], jurors: list[str], scores: list[float | None]) -> dict[str, float]:
    """Mean over jurors of each juror's mean log-odds over the two orders; 0 where there is none.

    The mean over orders takes out an additive bias for a position.
    """
    by_juror: dict[tuple[str, str], list[float]] = defaultdict(list)
    for pair, juror, score in zip(pair_ids, jurors, scores, strict=True):
        if score is not None:
            by_juror[pair, juror].append(score)
    by_pair: dict[str, list[float]] = {pair: [] for pair in pair_ids}
    for (pair, _), values in sorted(by_juror.items()):
        by_pair[pair].append(sum(values) / len(values))
    return {pair: sum(values) / len(values) if values else 0.0 for pair, values in by_pair.items()}
