"""Stages `tuning` and `trials`: the laboratory's training runs, one a row.

`tuning` trains every contender with every candidate setting and one seed, and scores captions of the training split that
nothing was rendered for; `trials` trains the candidate that did best there with other seeds, and scores held-out captions.
Rows are kept by what they are made from: another contender, noise level or seed computes its own rows only.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field, field_validator

from infra.config import ConfigError
from infra.dag import Inputs, RowStage, RunInputs
from infra.identity import key_of, row_id
from pipelines.algorithms.diffusion.flow import TimeSampler, UniformTimes
from pipelines.algorithms.preference.pairwise import Method
from pipelines.models.miniature.generators import Generator
from pipelines.models.miniature.grammar import captions as captions_of
from pipelines.schemas_lab import MEASURES, Trial
from pipelines.stages.examples import Examples
from pipelines.stages.lab_contenders import BASE, Contender, Phase, check_budgets
from pipelines.stages.lab_trial import PHASES, Experiment, Shown
from pipelines.stages.prompts import Prompts

TUNING_SEED = 0
SCORES = ["contender", "noise", "candidate", "settings", "diverged", *MEASURES]

# CPU seconds of one thread while another trial keeps the second core busy: two cores that share caches are 1.4, not 2.
SECONDS_PER_PASS = 0.0007
"""Forward through the policy of one picture; backward counts as two."""
SECONDS_PER_PICTURE = 0.0105
"""Drawing and checking it."""
SECONDS_PER_TRIAL = 1.2
"""Loading, writing and reading of a trial."""


class Tuning(RowStage):
    """Examples in; a trial a contender, noise level and candidate out."""

    name: ClassVar = "tuning"
    version: ClassVar = 2
    row: ClassVar = Trial

    prompts: Prompts
    examples: Examples
    base: Generator
    "The generator that is trained; its pictures are drawn as it says."
    near: tuple[str, ...]
    "Generators of near pairs."
    contenders: tuple[Contender, ...]
    captions: int = Field(ge=6)
    "Of the training split that choose a candidate; none of them is rendered for training."
    steps: int = Field(ge=2)
    "Optimiser steps of a contender of length 1."
    batch: int = Field(32, ge=1)
    "Pairs a step."
    times: TimeSampler = UniformTimes(low=0.25)
    "How noise levels are drawn: the sampler of eight steps never goes below t = 0.3."
    shard_rows: int = Field(1, ge=1)
    "A file a trial: what is finished is never lost."

    @field_validator("contenders")
    @classmethod
    def _fair(cls, contenders: tuple[Contender, ...]) -> tuple[Contender, ...]:
        check_budgets(contenders)
        return contenders

    @property
    def budget(self) -> int:
        """Candidates a contender."""
        return check_budgets(self.contenders)

    def settings(self) -> str:
        """The hash of what all trials share; who else is compared is no part of it."""
        shared = [Trial.__name__, Tuning.version, self.examples.key, self.base, list(self.near), self.batch, self.times]
        return key_of(shared)

    def cell(self, contender: Contender, *, noise: float, seed: int, candidate: int, shown: str) -> dict[str, Any]:
        """A training run; `shown` names the captions it is scored on."""
        settings = phases_json(contender.candidates[candidate])
        steps = self.steps * contender.length
        made = key_of([self.settings(), contender.data, candidate, settings, steps, noise, seed, shown])
        return {
            "id": row_id(key_of(contender.name), made),
            "contender": contender.name,
            "data": contender.data,
            "noise": noise,
            "seed": seed,
            "candidate": candidate,
            "settings": settings,
            "steps": steps,
        }

    def tuning_captions(self) -> tuple[Shown, ...]:
        """Those that follow the rendered ones: a longer draw begins with the same captions."""
        drawn = captions_of(self.prompts.train + self.captions, split="train", seed=self.prompts.seed)
        return tuple(Shown(one.text, one.expectation.to_json()) for one in drawn[self.prompts.train :])

    def cells(self, inputs: Inputs) -> pa.Table:
        """Columns id, contender, data, noise, seed, candidate, settings, steps."""
        del inputs
        shown = captions_key(self.tuning_captions())
        return pa.Table.from_pylist(
            [
                self.cell(contender, noise=noise, seed=TUNING_SEED, candidate=candidate, shown=shown)
                for contender in self.contenders
                for noise in contender.noises
                for candidate in range(self.budget)
            ]
        )

    def experiment(self, inputs: RunInputs, captions: tuple[Shown, ...]) -> Experiment:
        """A worker that trains on the examples and scores these captions."""
        if self.examples.arena is None:
            raise ConfigError("the laboratory needs the arena's gaps; give examples an arena")
        return Experiment(
            base=self.base,
            examples=inputs.table(self.examples),
            encoded=inputs.lookup(self.examples.encoded),  # pyright: ignore[reportArgumentType]
            arena=self.examples.arena,
            near=self.near,
            batch=self.batch,
            times=self.times,
            captions=captions,
        )

    def worker(self, inputs: RunInputs) -> Experiment:
        """Scores the tuning captions."""
        return self.experiment(inputs, self.tuning_captions())

    def seconds(self, *, trials: int, pictures: int) -> float:
        """Expected wall time of so many trials a contender and noise level."""
        work = 0.0
        for contender in self.contenders:
            each = sum(self._training(phases, contender.length) for phases in contender.candidates) / self.budget
            each += SECONDS_PER_TRIAL + pictures * SECONDS_PER_PICTURE
            work += len(contender.noises) * trials * each
        return work / self.resources.workers

    def _training(self, phases: tuple[Phase, ...], length: int) -> float:
        examples = self.steps * length * self.batch
        return sum(phase.share * examples * passes(phase.method) * SECONDS_PER_PASS for phase in phases)

    def expected_seconds(self) -> float:
        """Of all its rows."""
        return self.seconds(trials=self.budget, pictures=self.captions)

    def demand(self) -> str:
        """The expected wall time of all its rows."""
        return in_minutes(self.expected_seconds(), self.resources.workers)


class Trials(RowStage):
    """Chosen candidates in; a trial a contender, noise level and seed out, and the base's own scores."""

    name: ClassVar = "trials"
    version: ClassVar = 2
    row: ClassVar = Trial

    tuning: Tuning
    seeds: int = Field(ge=1)
    "Training seeds: none of them is the tuning's."
    shard_rows: int = Field(1, ge=1)
    "A file a trial."

    def cells(self, inputs: Inputs) -> pa.Table:
        """Columns id, contender, data, noise, seed, candidate, settings, steps."""
        shown, tuning = captions_key(self.captions(inputs)), self.tuning
        chosen = choices(inputs.table(tuning, SCORES))
        base = {"contender": BASE, "data": "", "noise": 0.0, "seed": 0, "candidate": 0, "settings": "[]", "steps": 0}
        rows = [{"id": row_id(key_of(BASE), key_of([Trial.__name__, tuning.base, shown])), **base}]
        for contender in tuning.contenders:
            for noise in contender.noises:
                if (contender.name, noise) not in chosen:
                    raise ConfigError(
                        f"trials: every tuning trial of {contender.name} at noise {noise:g} is quarantined; see their "
                        "errors, then run again with --retry-errors"
                    )
                candidate = chosen[contender.name, noise]
                for number in range(self.seeds):
                    seed = TUNING_SEED + 1 + number
                    rows.append(tuning.cell(contender, noise=noise, seed=seed, candidate=candidate, shown=shown))
        return pa.Table.from_pylist(rows)

    def captions(self, inputs: Inputs) -> tuple[Shown, ...]:
        """The held-out captions, in the order of every row's scores."""
        table = inputs.table(self.tuning.prompts, ["text", "expectation", "split"]).to_pylist()
        held_out = sorted((row["text"], row["expectation"]) for row in table if row["split"] == "evaluation")
        return tuple(Shown(text, expectation) for text, expectation in held_out)

    def worker(self, inputs: RunInputs) -> Experiment:
        """Scores the held-out captions."""
        return self.tuning.experiment(inputs, self.captions(inputs))

    def expected_rows(self, inputs: Inputs) -> int:
        """One a contender, noise level and seed, and the base."""
        del inputs
        return 1 + self.seeds * sum(len(contender.noises) for contender in self.tuning.contenders)

    def expected_seconds(self) -> float:
        """Of all its rows."""
        return self.tuning.seconds(trials=self.seeds, pictures=self.tuning.prompts.evaluation)

    def demand(self) -> str:
        """The expected wall time of all its rows."""
        return in_minutes(self.expected_seconds(), self.resources.workers)


def passes(method: Method) -> int:
    """Forward passes of one picture that learning from one pair is worth."""
    forward = 2 if method.reference == "none" else 4
    backward = 4 if method.trains_losers else 2
    return forward * (2 if method.needs_statistics else 1) + backward


def phases_json(phases: tuple[Phase, ...]) -> str:
    """A candidate as its row keeps it."""
    return PHASES.dump_json(phases).decode()


def captions_key(captions: tuple[Shown, ...]) -> str:
    """The hash of captions in their order."""
    return key_of([[one.text, one.expectation] for one in captions])


def choices(table: pa.Table) -> dict[tuple[str, float], int]:
    """The candidate of each contender and noise level: by mean strict score, then partial, quality, order."""
    best: dict[tuple[str, float], tuple[float, ...]] = {}
    for row in table.to_pylist():
        means = (math.fsum(row[measure]) / len(row[measure]) for measure in MEASURES)
        score = (*means, -row["candidate"])
        place = (row["contender"], row["noise"])
        best[place] = max(best.get(place, score), score)
    return {place: -int(score[-1]) for place, score in best.items()}


def in_minutes(seconds: float, workers: int) -> str:
    """For `plan`: what all rows take, on cores that do nothing else."""
    cores = f"{workers} idle core{'s' if workers > 1 else ''}"
    return f"about {seconds / 60:.1f} min on {cores}"
