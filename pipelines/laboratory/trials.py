"""Stage `trials`: the laboratory's methods, each used as one would use it, a row a contender, noise level and seed.

A trial trains every candidate setting of its contender with its seed, scores captions of the training split that nothing
was rendered for, and scores held-out captions with the candidate that did best there: the choice is part of what is
compared, and of how far two seeds are apart. Rows are kept by what they are made from: another contender, noise level or
seed computes its own rows only.
"""

from __future__ import annotations

from typing import ClassVar

import pyarrow as pa
from pydantic import Field, field_validator

from infra.config import ConfigError
from infra.dag.stage import Inputs, RowStage, RunInputs, Stage
from infra.identity import key_of, row_id
from pipelines.algorithms.diffusion.flow import TimeSampler, UniformTimes
from pipelines.algorithms.preference.pairwise import Method
from pipelines.laboratory.contenders import BASE, Contender, Phase, check_budgets
from pipelines.laboratory.rows import Trial
from pipelines.laboratory.trial import CANDIDATES, TIMES, CheckedCaption, TrialWorker
from pipelines.miniature.generators import MiniatureGenerator
from pipelines.miniature.prompts import Grammar
from pipelines.miniature.world.grammar import captions as captions_of
from pipelines.stages.examples import Examples
from pipelines.stages.prompts import WritePrompts

# CPU seconds of one thread while another trial keeps the second core busy: two cores that share caches are 1.4, not 2.
SECONDS_PER_PASS = 0.00055
"""Forward through the policy of one picture; backward counts as two."""
SECONDS_PER_PICTURE = 0.0083
"""Drawing and checking it."""
SECONDS_PER_TRAINING = 0.95
"""Loading, writing and reading."""


class Trials(RowStage):
    """Examples in; a trial a contender, noise level and seed out, and the base's own scores."""

    name: ClassVar = "trials"
    version: ClassVar = 3
    row: ClassVar = Trial
    in_cells: ClassVar = ("contenders", "seeds")

    prompts: WritePrompts
    examples: Examples
    base: MiniatureGenerator
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
    seeds: int = Field(ge=1)
    "Of training, of the examples' order and of the labels that are flipped."
    shard_rows: int = Field(1, ge=1)
    "A file a trial: what is finished is never lost."

    @field_validator("contenders")
    @classmethod
    def _fair(cls, contenders: tuple[Contender, ...]) -> tuple[Contender, ...]:
        check_budgets(contenders)
        return contenders

    @property
    def grammar(self) -> Grammar:
        """The captions' source; raises ConfigError for another one, since a trial draws captions of its own."""
        if not isinstance(self.prompts.source, Grammar):
            raise ConfigError("the laboratory needs captions of the miniature world; give prompts a Grammar as source")
        return self.prompts.source

    @property
    def budget(self) -> int:
        """Candidates a contender."""
        return check_budgets(self.contenders)

    def cells(self, inputs: Inputs) -> pa.Table:
        """Columns id, contender, data, noise, noise_kind, times, seed, steps, candidates."""
        tuning, held_out = captions_key(self.tuning_captions()), captions_key(self.held_out(inputs))
        # What all trials share; who else is compared is no part of it.
        shared = [self.version, self.examples.key, self.base, list(self.near), self.batch, self.times, tuning, held_out]
        base = {"contender": BASE, "data": "", "noise": 0.0, "seed": 0, "steps": 0, "candidates": "[]"}
        base |= {"noise_kind": "flips", "times": TIMES.dump_json(self.times).decode()}
        rows = [{"id": row_id(key_of(BASE), key_of([self.version, self.base, held_out])), **base}]
        for contender in self.contenders:
            candidates = CANDIDATES.dump_json(contender.candidates).decode()
            steps = self.steps * contender.length
            times = TIMES.dump_json(contender.times or self.times).decode()
            for noise in contender.noises:
                for seed in range(self.seeds):
                    made = key_of([shared, contender.data, candidates, steps, noise, contender.noise_kind, times, seed])
                    rows.append(
                        {
                            "id": row_id(key_of(contender.name), made),
                            "contender": contender.name,
                            "data": contender.data,
                            "noise": noise,
                            "noise_kind": contender.noise_kind,
                            "times": times,
                            "seed": seed,
                            "steps": steps,
                            "candidates": candidates,
                        }
                    )
        return pa.Table.from_pylist(rows)

    def tuning_captions(self) -> tuple[CheckedCaption, ...]:
        """Those that follow the rendered ones: a longer draw begins with the same captions."""
        drawn = captions_of(self.grammar.train + self.captions, split="train", seed=self.grammar.seed)
        return tuple(CheckedCaption(one.text, one.expectation.to_json()) for one in drawn[self.grammar.train :])

    def held_out(self, inputs: Inputs) -> tuple[CheckedCaption, ...]:
        """The held-out captions, in the order of every row's scores."""
        table = inputs.table(self.prompts, ["text", "expectation", "split"]).to_pylist()
        found = sorted((row["text"], row["expectation"]) for row in table if row["split"] == "evaluation")
        return tuple(CheckedCaption(text, expectation) for text, expectation in found)

    def reads(self) -> list[Stage]:
        """The worker trains on all examples and their latents, and draws the captions."""
        return [self.examples, self.examples.encoded, self.prompts]

    def worker(self, inputs: RunInputs) -> TrialWorker:
        """Trains, chooses and scores."""
        if self.examples.arena is None:
            raise ConfigError("the laboratory needs the arena's gaps; give examples an arena")
        return TrialWorker(
            base=self.base,
            examples=inputs.table(self.examples),
            encoded=inputs.lookup(self.examples.encoded),  # pyright: ignore[reportArgumentType]
            empty=self.examples.encoded.text_id(""),
            arena=self.examples.arena,
            near=self.near,
            batch=self.batch,
            tuning=self.tuning_captions(),
            held_out=self.held_out(inputs),
        )

    def expected_rows(self, inputs: Inputs) -> int:
        """One a contender, noise level and seed, and the base."""
        del inputs
        return 1 + self.seeds * sum(len(contender.noises) for contender in self.contenders)

    def expected_seconds(self) -> float:
        """Of all its rows."""
        work = 0.0
        for contender in self.contenders:
            trainings = sum(self._training(phases, contender.length) for phases in contender.candidates)
            pictures = self.budget * self.captions + self.grammar.evaluation
            each = trainings + self.budget * SECONDS_PER_TRAINING + pictures * SECONDS_PER_PICTURE
            work += len(contender.noises) * self.seeds * each
        return work / self.resources.workers

    def _training(self, phases: tuple[Phase, ...], length: int) -> float:
        examples = self.steps * length * self.batch
        return sum(phase.share * examples * passes(phase.method) * SECONDS_PER_PASS for phase in phases)

    def demand(self, inputs: Inputs) -> str:
        """The expected wall time of all its rows."""
        del inputs
        return in_minutes(self.expected_seconds(), self.resources.workers)


def passes(method: Method) -> int:
    """Forward passes of one picture that learning from one pair is worth."""
    forward = 2 if method.reference == "none" else 4
    backward = 4 if method.trains_losers else 2
    return forward * (2 if method.needs_statistics else 1) + backward


def captions_key(captions: tuple[CheckedCaption, ...]) -> str:
    """The hash of captions in their order."""
    return key_of([[one.text, one.expectation] for one in captions])


def in_minutes(seconds: float, workers: int) -> str:
    """For `plan`: what all rows take, on cores that do nothing else."""
    cores = f"{workers} idle core{'s' if workers > 1 else ''}"
    return f"about {seconds / 60:.1f} min on {cores}"
