"""Stage `evaluate`: base and tuned on held-out captions with identical seeds, by measures nobody trained on.

The exact checker (strict, partial, quality) decides; the jury's and the reward model's win rates stand beside, because they
were trained on. When those rise while the checker falls, the gate fails the stage: that is reward hacking.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from actors.media import encode_png
from actors.resident import Resident
from infra.config import ConfigError
from infra.dag.stage import Context, Inputs, Places, RowStage, RunInputs, Stage, Worker
from infra.identity import group_of, key_of, row_id, seed_of
from pipelines.algorithms.metrics.bootstrap import Bootstrap, paired_difference
from pipelines.algorithms.metrics.gate import Gate, Measure, judge
from pipelines.algorithms.metrics.interval import Interval
from pipelines.algorithms.metrics.win_rate import win_rate, wins
from pipelines.algorithms.prompting.opinion import Opinion
from pipelines.miniature.generators import MiniatureGenerator
from pipelines.miniature.world.checker import check
from pipelines.miniature.world.grammar import TASKS, Expectation
from pipelines.models.generators.generator import Request
from pipelines.models.jurors.juror import Case, Juror
from pipelines.models.scorers.scorer import Sample, Scorer
from pipelines.models.weights import Made
from pipelines.schemas.evaluation import Evaluation, EvaluationSummary
from pipelines.stages.prompts import WritePrompts
from pipelines.stages.reward import Reward
from pipelines.stages.tune import Tune

CHECKED = ("strict", "partial", "quality")
OVERALL = "overall"


class Comparison:
    """The worker: renders both, checks both, asks the jury in both orders and the reward model."""

    def __init__(
        self,
        base: MiniatureGenerator,
        tuned: MiniatureGenerator,
        jury: Sequence[Juror],
        *,
        reward: Scorer,
        resident: int,
    ) -> None:
        self.generators = {"base": base, "tuned": tuned}
        self.jury = list(jury)
        self.reward = reward
        self.resident = resident

    def open(self, device: str, places: Places) -> None:
        """Loads both generators and the reward model; jurors as they are asked."""
        self.samplers = {side: generator.open(device, places) for side, generator in self.generators.items()}
        self.jurors = Resident(self.jury, load=lambda juror: juror.open(device, places), resident=self.resident)
        self.scorer = self.reward.open(device, places)

    def run(self, cells: pa.Table) -> list[Evaluation]:
        """One row a cell, in order."""
        rows = cells.to_pylist()
        texts, asked = [row["text"] for row in rows], [Request(row["text"], row["seed"]) for row in rows]
        pictures = {side: opened.pictures(asked) for side, opened in self.samplers.items()}
        images = {side: [encode_png(picture) for picture in drawn] for side, drawn in pictures.items()}
        png = {side: [image.bytes for image in encoded] for side, encoded in images.items()}
        jury = self._jury(texts, png["base"], png["tuned"])
        rewards = {side: self._rewards(files, texts) for side, files in png.items()}
        found = []
        for i, row in enumerate(rows):
            expectation = Expectation.from_json(row["expectation"])
            values: dict[str, Any] = {name: row[name] for name in ("id", "prompt_id", "text", "task", "sample", "seed")}
            for side in ("base", "tuned"):
                checked = check(pictures[side][i], expectation)
                values |= {side: images[side][i], f"{side}_reward": float(rewards[side][i])}
                values |= {f"{side}_{name}": getattr(checked, name) for name in CHECKED}
            found.append(Evaluation(**values, jury=jury[i]))
        return found

    def _rewards(self, files: list[bytes], texts: list[str]) -> np.ndarray:
        samples = [Sample(file, "image", text) for file, text in zip(files, texts, strict=True)]
        return self.scorer.score(samples)[:, 0]

    def _jury(self, texts: list[str], base: list[bytes], tuned: list[bytes]) -> list[float]:
        """1, 0.5 or 0 a caption: the majority of the jurors, each asked in both orders; a contradiction is a tie."""
        balance = np.zeros(len(texts))
        for juror in self.jury:
            loaded = self.jurors.get(juror.name)
            there = loaded.judge([Case(*case) for case in zip(texts, base, tuned, strict=True)])
            back = loaded.judge([Case(*case) for case in zip(texts, tuned, base, strict=True)])
            for i, (one, other) in enumerate(zip(there, back, strict=True)):
                for forth, turned in zip(_opinions(one), _opinions(other), strict=True):
                    if (forth.choice, turned.choice) == ("second", "first"):
                        balance[i] += 1
                    elif (forth.choice, turned.choice) == ("first", "second"):
                        balance[i] -= 1
        return (0.5 + 0.5 * np.sign(balance)).tolist()


def _opinions(found: tuple[Opinion, ...] | Exception) -> tuple[Opinion, ...]:
    if isinstance(found, Exception):
        raise found
    return found


class Evaluate(RowStage):
    """Held-out prompts, base and tuned in; a row for each (caption, sample) out, and a summary with intervals."""

    name: ClassVar = "evaluate"
    row: ClassVar = Evaluation
    in_cells: ClassVar = ("samples", "seed", "bootstrap", "gate")
    tables: ClassVar[Mapping[str, type]] = {"summary": EvaluationSummary}

    prompts: WritePrompts
    base: MiniatureGenerator
    tune: Tune
    reward: Reward
    jury: tuple[Juror, ...]
    samples: int = Field(1, ge=1)
    "Pictures of each caption and model."
    seed: int = Field(0, ge=0)
    "Of the pictures: other seeds are other pictures of the same captions."
    reward_time: float = Field(0.05, gt=0, lt=1)
    "Noise level at which the reward model scores clean pictures."
    bootstrap: Bootstrap = Bootstrap()
    gate: Gate = Gate()
    shard_rows: int = Field(128, ge=1)
    "Rows a file and a call."

    def cells(self, inputs: Inputs) -> pa.Table:
        """Columns id, prompt_id, text, task, sample, seed, expectation."""
        columns = ["id", "text", "task", "split", "expectation"]
        prompts = [p for p in inputs.table(self.prompts, columns).to_pylist() if p["split"] == "evaluation"]
        if not prompts:
            raise ConfigError("evaluate needs held-out prompts, got none; raise --evaluation")
        settings = [key_of(self.base), self.tune.key, self.reward.key, self.reward_time, [key_of(j) for j in self.jury]]
        maker = key_of(settings)
        rows = []
        for prompt in prompts:
            for sample in range(self.samples):
                rows.append(
                    {
                        "id": row_id(group_of(self.name, prompt["id"]), maker, prompt["text"], self.seed, sample),
                        "prompt_id": prompt["id"],
                        "text": prompt["text"],
                        "task": prompt["task"],
                        "sample": sample,
                        "seed": seed_of("evaluation", prompt["text"], self.seed, sample),
                        "expectation": prompt["expectation"],
                    }
                )
        return pa.Table.from_pylist(rows)

    def reads(self) -> list[Stage]:
        """The worker loads what was tuned and the reward model."""
        return [self.tune, self.reward]

    def worker(self, inputs: RunInputs) -> Worker:
        """Everything that judges, on one device."""
        tuned = self.base.tuned(Made(stage=self.tune), adapter=self.tune.adapter.kind)
        reward = self.reward.scorer(t=self.reward_time)
        return Comparison(self.base, tuned, self.jury, reward=reward, resident=max(len(self.jury), 1))

    def finish(self, context: Context, rows: Callable[..., pa.Table]) -> None:
        """The summary, and the gate's verdict, which stage `gate` acts on."""
        skipped = {"base", "tuned", "text"}
        names = [name for name in Evaluation.__dataclass_fields__ if name not in skipped]
        table = rows(names)
        columns = {name: np.array(table[name].to_pylist()) for name in names}
        summary = self._summary(columns)
        context.emit("summary", summary)
        overall = {row.measure: row for row in summary if row.task == OVERALL}
        measures = [
            Measure(name, trained_on=name not in CHECKED, difference=Interval(r.difference, r.low, r.high, r.n))
            for name, r in overall.items()
        ]
        verdict = judge(measures, options=self.gate)
        context.metric("gate", {"passed": verdict.passed, "reasons": list(verdict.reasons)})
        strict = overall["strict"]
        for name in ("base", "tuned", "difference", "low", "high"):
            context.metric(f"strict_{name}", getattr(strict, name))

    def _summary(self, columns: dict[str, np.ndarray]) -> list[EvaluationSummary]:
        found = []
        for task in (OVERALL, *TASKS):
            chosen = np.full(len(columns["task"]), True) if task == OVERALL else columns["task"] == task
            if chosen.any():
                part = {name: values[chosen] for name, values in columns.items()}
                found += [self._difference(part, name, task) for name in (*CHECKED, "reward")]
                found += [self._win_rate(part, name, task) for name in ("jury", "reward")]
        return found

    def _difference(self, part: dict[str, np.ndarray], name: str, task: str) -> EvaluationSummary:
        base, tuned = part[f"base_{name}"].astype(float), part[f"tuned_{name}"].astype(float)
        interval = paired_difference(
            base,
            tuned=tuned,
            groups=part["prompt_id"].tolist(),
            generator=np.random.default_rng(seed_of(self.seed, name, task)),
            options=self.bootstrap,
        )
        means = (float(base.mean()), float(tuned.mean()))
        return EvaluationSummary(name, task, *means, interval.estimate, interval.low, interval.high, interval.n)

    def _win_rate(self, part: dict[str, np.ndarray], name: str, task: str) -> EvaluationSummary:
        outcomes = part["jury"] if name == "jury" else wins(part["base_reward"], tuned=part["tuned_reward"])
        seeds = part["seed"].tolist()
        rate = win_rate(
            outcomes,
            base_seeds=seeds,
            tuned_seeds=seeds,
            groups=part["prompt_id"].tolist(),
            generator=np.random.default_rng(seed_of(self.seed, "win", name, task)),
            options=self.bootstrap,
        )
        centred = (rate.estimate - 0.5, rate.low - 0.5, rate.high - 0.5)
        return EvaluationSummary(f"win_rate_{name}", task, 1 - rate.estimate, rate.estimate, *centred, rate.n)
