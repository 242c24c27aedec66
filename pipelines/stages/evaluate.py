"""Stage `evaluate`: arms compared from tables; no model is loaded here.

The arms are generators that rendered the same held-out prompts with the same seeds; one of them is the baseline. Their
scores and the jury's labels are rows of ordinary stages. Which measures taught an arm is read off the DAG, and the gate's
verdict on each arm is a table beside the summary; stage `gate` acts on it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from jaxtyping import Float
from pydantic import Field, model_validator

from infra.config import Config, ConfigError
from infra.dag.stage import Context, TableStage
from infra.identity import seed_of
from pipelines.algorithms.metrics.bootstrap import Bootstrap, paired_difference
from pipelines.algorithms.metrics.gate import Gate, MeasuredChange, decide
from pipelines.algorithms.metrics.interval import Interval
from pipelines.algorithms.metrics.win_rate import decided_win_rate, win_rate, wins
from pipelines.schemas.evaluation import EvaluationSummary, GateReason
from pipelines.stages.label import Label
from pipelines.stages.prompts import WritePrompts
from pipelines.stages.score import ScoreSamples
from pipelines.stages.sources import Pictures
from pipelines.training.teachers import judges_in, teachers_of

OVERALL = "overall"
"""The task of a row that is about all tasks, and the dimension of a measure that has one only."""
JURY, HELD_OUT_JURY = "jury", "held_out_jury"
MEAN, WIN_RATE, WIN_RATE_DECIDED = "mean", "win_rate", "win_rate_decided"
RATES = {WIN_RATE: "share of pairs, a tie is half a win", WIN_RATE_DECIDED: "share of pairs that are no tie"}


@dataclass(frozen=True)
class Shot:
    """A picture of one arm, by prompt and sample number."""

    picture: str
    seed: int


Shots = Mapping[tuple[str, int], Shot]


@dataclass(frozen=True)
class Measured:
    """One measure in one dimension on the pictures of two arms, NaN where it is missing."""

    measure: str
    dimension: str
    convention: str
    judged_by: frozenset[str]
    baseline: Float[np.ndarray, " n"] | None
    """Values of the baseline's pictures; None where only the comparison is known."""
    arm: Float[np.ndarray, " n"] | None
    outcomes: Float[np.ndarray, " n"]
    """1: the arm's picture is better, 0: the baseline's, 0.5: a tie."""


class Evaluate(TableStage):
    """Pictures of two or more arms, their scores and labels in; each arm against the baseline, by measure and task, out."""

    name: ClassVar = "evaluate"
    row: ClassVar = EvaluationSummary
    tables: ClassVar[Mapping[str, type]] = {"gate": GateReason}

    prompts: WritePrompts
    pictures: Pictures
    "Pictures of every arm on the same prompts with the same seeds."
    baseline: str
    "Name of the generator that the others are compared with."
    scores: tuple[ScoreSamples, ...] = ()
    "Scores of the pictures; the measure is the scorer's name."
    jury: Label | None = None
    "Labels of pairs of the pictures; the measure is called jury."
    held_out_jury: Label | None = None
    "Labels of the same pairs by other jurors, who taught no arm; the measure is called held_out_jury."
    seed: int = Field(0, ge=0)
    "Seed of the resampling."
    bootstrap: Bootstrap = Bootstrap()
    gate: Gate = Gate()

    @model_validator(mode="after")
    def _measurable(self) -> Evaluate:
        names = [scorer.name for scores in self.scores for scorer in scores.scorers] + list(self._juries)
        if not names or len(set(names)) != len(names):
            raise ValueError(f"evaluate needs scores or a jury, each measure under a name of its own, got {names}")
        scorers = [judges_in([scorer]) for scores in self.scores for scorer in scores.scorers]
        measures = [*scorers, *(judges_in(jury.votes.jurors) for jury in self._juries.values())]
        for arm, maker in self.pictures.makers.items():
            if arm != self.baseline and all(teachers_of(maker) & judges for judges in measures):
                raise ConfigError(
                    f"evaluate: {arm} was taught by every measure that compares it with {self.baseline}, so that reward "
                    "hacking could not be seen; add a scorer or a juror that no arm has learned from"
                )
        return self

    @property
    def _juries(self) -> Mapping[str, Label]:
        """The juries by the name of their measure."""
        given = {JURY: self.jury, HELD_OUT_JURY: self.held_out_jury}
        return {name: label for name, label in given.items() if label is not None}

    def run(self, context: Context) -> Iterator[EvaluationSummary]:
        """Arms in sorted order; of each, measures in the order of the stage's fields, all tasks together first."""
        shots = self._shots(context)
        prompts = context.table(self.prompts, ["id", "task"])
        tasks = dict(zip(prompts["id"].to_pylist(), prompts["task"].to_pylist(), strict=True))
        values = self._values(context)
        preferences = {name: _preferences(context, label) for name, label in self._juries.items()}
        reasons: list[GateReason] = []
        for arm in sorted(set(shots) - {self.baseline}):
            pairs = self._pairs(arm, shots)
            teachers = teachers_of(self.pictures.makers[arm]) if arm in self.pictures.makers else frozenset()
            rows: list[EvaluationSummary] = []
            for measured in self._measured(pairs, values, preferences):
                rows += self._rows(arm, measured, pairs, tasks=tasks, trained_on=bool(teachers & measured.judged_by))
            reasons += self._gated(arm, rows)
            yield from rows
        context.emit("gate", reasons)

    def _shots(self, context: Context) -> Mapping[str, Shots]:
        """The pictures of each generator."""
        shots: dict[str, dict[tuple[str, int], Shot]] = {}
        for row in context.table(self.pictures, ["id", "prompt_id", "generator", "sample", "seed"]).to_pylist():
            shot = Shot(row["id"], row["seed"])
            shots.setdefault(row["generator"], {})[row["prompt_id"], row["sample"]] = shot
        if self.baseline not in shots or len(shots) < 2:
            raise ConfigError(
                f"evaluate compares generators with {self.baseline!r}, but {self.pictures.node} has pictures of "
                f"{', '.join(sorted(shots)) or 'none'}; put the baseline and at least one other into its roster"
            )
        return shots

    def _pairs(self, arm: str, shots: Mapping[str, Shots]) -> dict[tuple[str, int], tuple[Shot, Shot]]:
        """(baseline, arm) for every prompt and sample that both have; raises ConfigError where their seeds differ."""
        base, other = shots[self.baseline], shots[arm]
        pairs = {key: (base[key], other[key]) for key in sorted(base.keys() & other.keys())}
        if any(one.seed != two.seed for one, two in pairs.values()):
            raise ConfigError(f"{arm} and {self.baseline} have other seeds; render them with seeds='shared'")
        if not pairs:
            raise ConfigError(f"{arm} and {self.baseline} have no prompt in common; render both on one split")
        return pairs

    def _values(self, context: Context) -> dict[tuple[str, str], dict[str, float]]:
        """Value of each picture by scorer and dimension; what could not be scored is left out."""
        found: dict[tuple[str, str], dict[str, float]] = {}
        for scores in self.scores:
            columns = context.table(scores, ["sample", "scorer", "dimension", "value"]).to_pydict().values()
            for sample, scorer, dimension, value in zip(*columns, strict=True):
                if value is not None:
                    found.setdefault((scorer, dimension), {})[sample] = value
        return found

    def _measured(
        self,
        pairs: Mapping[tuple[str, int], tuple[Shot, Shot]],
        values: Mapping[tuple[str, str], Mapping[str, float]],
        preferences: Mapping[str, Mapping[tuple[str, str], float]],
    ) -> Iterator[Measured]:
        """Every measure on the pairs of one arm."""
        ids = [(one.picture, other.picture) for one, other in pairs.values()]
        for scorer in (scorer for scores in self.scores for scorer in scores.scorers):
            judged_by = judges_in([scorer])
            for dimension in scorer.dimensions:
                known = values.get((scorer.name, dimension), {})
                base = np.array([known.get(one, math.nan) for one, _ in ids])
                arm = np.array([known.get(other, math.nan) for _, other in ids])
                outcomes = wins(base, tuned=arm)
                yield Measured(scorer.name, dimension, scorer.convention, judged_by, base, arm, outcomes)
        for name, label in self._juries.items():
            outcomes = np.array([preferences[name].get(pair, math.nan) for pair in ids])
            jury: Sequence[Config] = label.votes.jurors
            yield Measured(name, OVERALL, RATES[WIN_RATE], judges_in(jury), None, None, outcomes)

    def _rows(
        self,
        arm: str,
        measured: Measured,
        pairs: Mapping[tuple[str, int], tuple[Shot, Shot]],
        *,
        tasks: Mapping[str, str],
        trained_on: bool,
    ) -> Iterator[EvaluationSummary]:
        """Mean difference where there are values, and both win rates, over all tasks and over each."""
        prompts = np.array([prompt for prompt, _ in pairs])
        task_of = np.array([tasks[prompt] for prompt in prompts])
        for statistic in (MEAN, WIN_RATE, WIN_RATE_DECIDED):
            if statistic == MEAN and measured.arm is None:
                continue
            for task in (OVERALL, *dict.fromkeys(tasks.values())):
                chosen = np.full(len(prompts), True) if task == OVERALL else task_of == task
                if not chosen.any():
                    continue
                numbers = self._numbers(measured, statistic, task, chosen, groups=prompts)
                yield EvaluationSummary(
                    arm=arm,
                    baseline=self.baseline,
                    measure=measured.measure,
                    dimension=measured.dimension,
                    statistic=statistic,
                    task=task,
                    **numbers,
                    trained_on=trained_on,
                    convention=measured.convention if statistic == MEAN else RATES[statistic],
                )

    def _numbers(
        self, measured: Measured, statistic: str, task: str, chosen: np.ndarray, *, groups: np.ndarray
    ) -> dict[str, Any]:
        """value, baseline_value, difference, low, high, n over the chosen pairs; None where nothing was compared."""
        chosen = chosen & np.isfinite(measured.outcomes)
        outcomes, names = measured.outcomes[chosen], groups[chosen].tolist()
        generator = np.random.default_rng(seed_of(self.seed, measured.measure, measured.dimension, statistic, task))
        settings: dict[str, Any] = {"groups": names, "generator": generator, "options": self.bootstrap}
        if not names:
            return _numbers_of(None)
        if statistic == MEAN and measured.baseline is not None and measured.arm is not None:
            base, arm = measured.baseline[chosen], measured.arm[chosen]
            found = paired_difference(base, tuned=arm, **settings)
            return _numbers_of(found, value=float(arm.mean()), baseline_value=float(base.mean()))
        if statistic == WIN_RATE_DECIDED:
            return _rate_numbers(decided_win_rate(outcomes, **settings))
        places = range(len(names))  # the seeds themselves were compared when the pairs were made
        return _rate_numbers(win_rate(outcomes, base_seeds=places, tuned_seeds=places, **settings))

    def _gated(self, arm: str, rows: Sequence[EvaluationSummary]) -> list[GateReason]:
        """The gate's verdict on one arm: by means where a measure has them, by the win rate where it compares only."""
        changes = []
        for row in rows:
            by = WIN_RATE if row.measure in self._juries else MEAN
            if row.task == OVERALL and row.statistic == by:
                numbers = [math.nan if x is None else x for x in (row.difference, row.low, row.high)]
                name = row.measure if row.dimension == OVERALL else f"{row.measure} {row.dimension}"
                changes.append(MeasuredChange(name, trained_on=row.trained_on, difference=Interval(*numbers, row.n)))
        verdict = decide(changes, options=self.gate)
        return [GateReason(arm, verdict.passed, reason) for reason in verdict.reasons]


def _preferences(context: Context, label: Label) -> dict[tuple[str, str], float]:
    """For each judged pair (one, other): 1 where the jury prefers `other`, 0 where `one`, 0.5 where it ties."""
    found: dict[tuple[str, str], float] = {}
    table: pa.Table = context.table(label, ["picture_a", "picture_b", "choice"])
    for row in table.to_pylist():
        b_wins = {"a": 0.0, "b": 1.0, "tie": 0.5}[row["choice"]]
        found[row["picture_a"], row["picture_b"]] = b_wins
        found[row["picture_b"], row["picture_a"]] = 1 - b_wins
    return found


def _numbers_of(
    found: Interval | None, *, value: float | None = None, baseline_value: float | None = None, shift: float = 0.0
) -> dict[str, Any]:
    """Columns of the summary from an interval; `shift` is the estimate that means no difference."""
    if found is None:
        return dict.fromkeys(("value", "baseline_value", "difference", "low", "high")) | {"n": 0}
    ends = {"difference": found.estimate - shift, "low": found.low - shift, "high": found.high - shift}
    return {"value": value, "baseline_value": baseline_value, **ends, "n": found.n}


def _rate_numbers(rate: Interval | None) -> dict[str, Any]:
    if rate is None:
        return _numbers_of(None)
    return _numbers_of(rate, value=rate.estimate, baseline_value=1 - rate.estimate, shift=0.5)
