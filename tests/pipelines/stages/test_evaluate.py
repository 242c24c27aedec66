"""Arms are compared from tables: any number of them, paired by prompt and seed, with failures left out."""

from collections.abc import Iterator
from itertools import product
from typing import Any, ClassVar

import numpy as np
import pytest

from actors.media import encode_png
from infra.config import ConfigError
from infra.dag.stage import TableStage
from infra.identity import group_id, row_id, seed_of
from infra.store.artifacts import Store
from pipelines.algorithms.metrics.bootstrap import Bootstrap
from pipelines.miniature.prompts import Grammar
from pipelines.miniature.scorers import Checker
from pipelines.miniature.world.draw import SIZE, draw, sample_scene
from pipelines.miniature.world.grammar import TASKS, captions
from pipelines.schemas.evaluation import EvaluationSummary, GateReason
from pipelines.schemas.samples import Picture
from pipelines.stages.evaluate import Evaluate
from pipelines.stages.prompts import WritePrompts
from pipelines.stages.score import ScoreSamples
from pipelines.stages.sources import Pictures
from support.inline import computed

PROMPTS = WritePrompts(source=Grammar(train=6, evaluation=12))
ARMS = {"half": 0.5, "all": 1.0, "none": 0.0}
"""Share of the captions that each arm draws; of the others it leaves the paper empty."""


class Drawings(TableStage, Pictures):
    """Every arm on every held-out caption: half of each task's two captions is one of them."""

    name: ClassVar = "drawings"
    row: ClassVar = Picture

    same_seeds: bool = True

    def run(self, context: Any) -> Iterator[Picture]:
        seen = dict.fromkeys(TASKS, 0)
        for caption in captions(12, split="evaluation", seed=0):
            seen[caption.task] += 1
            scene = sample_scene(caption.expectation, generator=np.random.default_rng(seed_of(caption.text)))
            drawn, empty = draw([scene])[0], np.full((SIZE, SIZE, 3), 200, np.uint8)
            for arm, share in ARMS.items():
                prompt = group_id(caption.text)
                seed = 7 if self.same_seeds else seed_of(arm)
                pixels = drawn if seen[caption.task] <= 2 * share else empty
                image = encode_png(pixels)
                yield Picture(row_id(prompt, arm), prompt, caption.text, arm, 0, seed, image, SIZE, SIZE)


def evaluate(**changed: Any) -> Evaluate:
    drawings = changed.pop("pictures", Drawings())
    scores = ScoreSamples(pictures=drawings, prompts=PROMPTS, scorers=(Checker(),))
    values = {"baseline": "half", "bootstrap": Bootstrap(resamples=200)} | changed
    return Evaluate(prompts=PROMPTS, pictures=drawings, scores=(scores,), **values)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    store, stage = Store(tmp_path_factory.mktemp("store")), evaluate()
    computed(stage, store)
    rows = store.artifact(stage).rows(EvaluationSummary)
    return list(rows), list(store.artifact(stage).rows(GateReason, name="gate"))


def of(rows, **wanted):
    (row,) = [row for row in rows if all(getattr(row, name) == value for name, value in wanted.items())]
    return row


def test_every_arm_is_compared_with_the_baseline_by_every_measure_task_and_statistic(finished):
    rows, _ = finished
    cells = {(row.arm, row.dimension, row.statistic, row.task) for row in rows}
    statistics = ("mean", "win_rate", "win_rate_decided")
    wanted = set(product(("all", "none"), Checker().dimensions, statistics, ("overall", *TASKS)))
    assert cells == wanted and len(rows) == len(cells) and {row.baseline for row in rows} == {"half"}


def test_differences_and_win_rates_are_those_of_the_pictures(finished):
    rows, _ = finished
    common = {"dimension": "strict", "task": "overall"}
    better = of(rows, arm="all", statistic="mean", **common)
    assert (better.value, better.baseline_value, better.difference, better.n) == (1.0, 0.5, 0.5, 12)
    assert 0 < better.low < 0.5 < better.high < 1 and better.convention == Checker.convention
    ties = of(rows, arm="all", statistic="win_rate", **common)
    decided = of(rows, arm="all", statistic="win_rate_decided", **common)
    assert (ties.value, ties.difference, ties.n) == (0.75, 0.25, 12)  # six wins, six ties
    assert (decided.value, decided.difference, decided.n) == (1.0, 0.5, 6)
    worse = of(rows, arm="none", statistic="win_rate_decided", **common)
    assert (worse.value, worse.high) == (0.0, -0.5)


def test_what_no_stage_of_the_dag_made_was_taught_by_nothing(finished):
    rows, _ = finished
    assert not any(row.trained_on for row in rows)


def test_the_gate_speaks_of_each_arm(finished):
    _, reasons = finished
    assert {reason.arm for reason in reasons} == {"all", "none"} and all(reason.passed for reason in reasons)
    assert any("checker strict" in r.reason and "falls" in r.reason for r in reasons if r.arm == "none")


def test_arms_of_other_seeds_and_an_unknown_baseline_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="other seeds"):
        computed(evaluate(pictures=Drawings(same_seeds=False)), Store(tmp_path))
    with pytest.raises(ConfigError, match="'nobody'.*all, half, none"):
        computed(evaluate(baseline="nobody"), Store(tmp_path))


def test_an_evaluation_without_a_measure_is_refused():
    with pytest.raises(ConfigError, match="scores or a jury"):
        Evaluate(prompts=PROMPTS, pictures=Drawings(), baseline="half")
