"""A trial: every setting trained in the worker's own process, one chosen, and the exact checker on what its policy draws.

Training begins in a second here; Ray Train needs twenty to start. A run that diverges is a result, not an error.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import TypeAdapter

from actors.training.engines.engine import EngineOptions
from actors.training.launch import Halt, here
from actors.training.options import TrainerOptions
from actors.training.trainer import EXPORT, Training, train
from infra.dag.stage import Places
from infra.identity import canonical, seed_of
from infra.store.artifacts import RowReader
from infra.store.files import Folder
from pipelines.algorithms.diffusion.flow import TimeSampler
from pipelines.laboratory.contenders import BASE, Phase
from pipelines.laboratory.data import dimensions_of, material
from pipelines.laboratory.rows import MEASURES, Trial
from pipelines.miniature.family import MiniatureFamily
from pipelines.miniature.generators import MiniatureGenerator
from pipelines.miniature.world.checker import check
from pipelines.miniature.world.grammar import Expectation
from pipelines.models.adapter import Full, Start
from pipelines.models.generators.generator import Request
from pipelines.schemas.curves import ends
from pipelines.stages.arena import Arena
from pipelines.training.data import TrainingData
from pipelines.training.noise import NoiseDraws
from pipelines.training.preference import PolicySpec, PreferenceObjective
from pipelines.training.stage import curve_of

PHASES = TypeAdapter(tuple[Phase, ...])
TIMES: TypeAdapter[TimeSampler] = TypeAdapter(TimeSampler)
CANDIDATES = TypeAdapter(tuple[tuple[Phase, ...], ...])
"""The settings of a contender, each its phases in order."""


@dataclass(frozen=True)
class CheckedCaption:
    """A caption to draw, and what the checker asks of it."""

    text: str
    expectation: str

    @property
    def seed(self) -> int:
        """Of its picture: the same for the base and every contender."""
        return seed_of("laboratory", self.text)


@dataclass(frozen=True)
class TrainingOutcome:
    """How a training run ended."""

    policy: MiniatureGenerator | None  # None where it diverged
    pairs: int
    diverged: str
    accuracy: float | None


@dataclass
class TrialWorker:
    """The worker: a trial a row."""

    base: MiniatureGenerator
    examples: pa.Table
    encoded: RowReader
    empty: str
    """Id of the encoded empty text."""
    arena: Arena
    near: tuple[str, ...]
    batch: int
    tuning: tuple[CheckedCaption, ...]
    held_out: tuple[CheckedCaption, ...]

    def open(self, device: str, places: Places) -> None:
        """One thread a worker: the machine's cores are shared by processes."""
        self.device, self.places = device, places
        import torch

        torch.set_num_threads(1)

    def run(self, cells: pa.Table) -> list[Trial]:
        """One row a cell, in order."""
        return [self._trial(cell) for cell in cells.to_pylist()]

    def _trial(self, cell: dict[str, Any]) -> Trial:
        data, candidates = cell.pop("data"), CANDIDATES.validate_json(cell.pop("candidates"))
        kind, times = cell.pop("noise_kind"), TIMES.validate_json(cell.pop("times"))
        with tempfile.TemporaryDirectory(prefix="salon-trial-") as folder:
            outcomes, tried, chosen = [TrainingOutcome(self.base, 0, "", None)], [], 0
            if cell["contender"] != BASE:
                tastes = self._tastes() if kind == "conflict" else None
                given = {"noise": cell["noise"], "seed": cell["seed"], "arena": self.arena, "tastes": tastes}
                pairs = material(self.examples, data=data, near=self.near, **given)
                outcomes = [
                    self._train(phases, pairs, Path(folder) / str(number), cell["steps"], cell["seed"], times)
                    for number, phases in enumerate(candidates)
                ]
                scores = [self._scores(outcome.policy, self.tuning) for outcome in outcomes]
                chosen = best(scores)
                tried = [_mean(found[MEASURES[0]]) for found in scores]
            outcome = outcomes[chosen]
            scored = self._scores(outcome.policy, self.held_out)
        return Trial(
            **cell,
            tried=tried,
            failed=sum(bool(one.diverged) for one in outcomes),
            candidate=chosen,
            settings=PHASES.dump_json(candidates[chosen]).decode() if candidates else "[]",
            pairs=outcome.pairs,
            diverged=outcome.diverged,
            implicit_accuracy=outcome.accuracy,
            **scored,
        )

    def _train(
        self, phases: tuple[Phase, ...], pairs: pa.Table, folder: Path, steps: int, seed: int, times: TimeSampler
    ) -> TrainingOutcome:
        """The phases in order; each starts from, and stays close to, what the one before it left."""
        start, accuracy, used, left = None, None, 0, steps
        for number, phase in enumerate(phases):
            share = left if phase is phases[-1] else max(1, min(left - 1, round(phase.share * steps)))
            left -= share
            mine = pairs if phase.method.keeps_ties else pairs.filter(pc.invert(pairs["tie"]))
            used = max(used, mine.num_rows)
            try:
                checkpoint = self._phase(phase, mine, folder / str(number), start, share, seed, times)
            except Halt as reason:
                return TrainingOutcome(None, used, str(reason), None)
            start = Start(checkpoint / EXPORT, Full())
            _, accuracy = ends(list(curve_of(checkpoint)))["implicit_accuracy"]
        assert start is not None, "a candidate has a phase"
        return TrainingOutcome(self.base.tuned(Folder(path=str(start.folder)), adapter="full"), used, "", accuracy)

    def _phase(
        self, phase: Phase, pairs: pa.Table, folder: Path, start: Start | None, steps: int, seed: int, times: TimeSampler
    ) -> Path:
        """The checkpoint of one phase."""
        data = TrainingData(folder / "examples.arrow", self.encoded, self.empty)
        data.write(pairs)
        objective = PreferenceObjective(
            data=data,
            policy=PolicySpec(MiniatureFamily(weights=self.base.weights), Full(), start),
            method=phase.method,
            noise=NoiseDraws(times, draws=None),
            reference="none" if phase.method.reference == "none" else "copy",
            described={"phase": canonical(phase)},
        )
        options = TrainerOptions(
            steps=steps,
            batch=self.batch,
            learning_rate=phase.learning_rate,
            schedule="linear",
            warm_up=min(10, steps // 5),
            seed=seed,
            engine=EngineOptions(kind="torch"),
            checkpoint_every=steps,
        )
        return here(train, Training(objective, options), folder=folder / "run", on_report=None)

    def _tastes(self) -> dict[str, tuple[float, ...]]:
        """The dimensions of every picture of the examples; latents of the miniature are its pixels."""
        from safetensors.torch import load

        names = sorted({*self.examples["winner"].to_pylist(), *self.examples["loser"].to_pylist()})
        tensors = self.encoded.take(names, ["tensors"])["tensors"].to_pylist()
        return {
            name: dimensions_of(load(data)["latent"].float().numpy()) for name, data in zip(names, tensors, strict=True)
        }

    def _scores(self, policy: MiniatureGenerator | None, shown: tuple[CheckedCaption, ...]) -> dict[str, Any]:
        """Every measure, a number a caption; zeros without a policy."""
        if policy is None:
            return {measure: [0.0] * len(shown) for measure in MEASURES}
        opened = policy.open(self.device, self.places)
        pictures = opened.pictures([Request(one.text, one.seed) for one in shown])
        checked = [
            check(picture, Expectation.from_json(one.expectation)) for picture, one in zip(pictures, shown, strict=True)
        ]
        return {measure: [float(getattr(one, measure)) for one in checked] for measure in MEASURES}


def best(scores: Sequence[Mapping[str, Sequence[float]]]) -> int:
    """Which candidate's scores are highest in the mean: by strict, then partial, then quality; the first of equals."""
    means = [tuple(_mean(found[measure]) for measure in MEASURES) for found in scores]
    return means.index(max(means))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
