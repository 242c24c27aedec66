"""Any scorer on any pictures: one row per (sample, scorer, dimension), only new rows computed, failures masked."""

import math
import os
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import pytest

from actors.executor import RayExecutor
from actors.media import encode_png
from infra.config import ConfigError
from infra.dag.run import Runner
from infra.dag.selection import Selection
from infra.dag.stage import Resources, TableStage
from infra.identity import group_id, row_id, seed_of
from infra.store.artifacts import Store
from pipelines.miniature.prompts import Grammar
from pipelines.miniature.scorers import Checker
from pipelines.miniature.world.draw import SIZE, draw, sample_scene
from pipelines.miniature.world.grammar import Expectation, captions
from pipelines.models.scorers.scorer import Scorer
from pipelines.schemas.evaluation import Score
from pipelines.schemas.samples import Picture
from pipelines.stages.prompts import WritePrompts
from pipelines.stages.score import ScoreSamples
from pipelines.stages.sources import Pictures
from support.inline import computed
from tests.benchmarks.quiet import Quiet

PROMPTS = WritePrompts(source=Grammar(train=6, evaluation=12))


class Drawn(TableStage, Pictures):
    """A perfect picture of every held-out caption."""

    name: ClassVar = "drawn"
    row: ClassVar = Picture

    count: int = 12

    def run(self, context: Any) -> Iterator[Picture]:
        for caption in captions(self.count, split="evaluation", seed=0):
            scene = sample_scene(caption.expectation, generator=np.random.default_rng(seed_of(caption.text)))
            image = encode_png(draw([scene])[0])
            prompt = group_id(caption.text)
            yield Picture(row_id(prompt, caption.text), prompt, caption.text, "pen", 0, 0, image, SIZE, SIZE)


class Lightness(Scorer):
    """Mean level of each channel; no score for a caption about red."""

    convention: ClassVar = "mean level, 0 to 255"

    name: str = "lightness"
    channels: tuple[str, ...] = ("red", "green", "blue")

    @property
    def dimensions(self) -> tuple[str, ...]:
        return self.channels

    def open(self, device: str, places: Any) -> Any:
        return OpenLightness(len(self.channels))


class OpenLightness:
    """Insists that a batch shows each sample once, whatever the number of its dimensions."""

    def __init__(self, channels: int) -> None:
        self.channels = channels

    def score(self, samples):
        from actors.media import decode

        assert len({sample.media for sample in samples}) == len(samples) and all(s.medium == "image" for s in samples)
        values = np.stack([decode(sample.media, clip=False).mean((0, 1, 2))[: self.channels] for sample in samples])
        values[["red" in sample.prompt for sample in samples]] = math.nan
        return values


def scored(store: Store, stage: ScoreSamples) -> list[dict]:
    computed(stage, store, name=stage.key)
    return store.artifact(stage).table(Score).to_pylist()


def test_there_is_one_row_per_sample_scorer_and_dimension_with_the_scorers_convention(tmp_path):
    drawn = Drawn()
    store = Store(tmp_path)
    rows = scored(store, ScoreSamples(pictures=drawn, prompts=PROMPTS, scorers=(Checker(), Lightness()), shard_rows=7))
    samples = set(store.artifact(drawn).table(Picture)["id"].to_pylist())
    asked = {("checker", name) for name in Checker().dimensions} | {("lightness", name) for name in Lightness().dimensions}
    cells = [(row["sample"], row["scorer"], row["dimension"]) for row in rows]
    assert sorted(cells) == sorted((sample, *pair) for sample in samples for pair in asked)
    assert {(row["scorer"], row["convention"]) for row in rows} == {
        ("checker", Checker.convention),
        ("lightness", Lightness.convention),
    }


def test_a_perfect_picture_is_strictly_right_by_the_checker_as_a_scorer(tmp_path):
    rows = scored(Store(tmp_path), ScoreSamples(pictures=Drawn(), prompts=PROMPTS, scorers=(Checker(),)))
    strict = [row["value"] for row in rows if row["dimension"] == "strict"]
    assert strict == [1.0] * 12 and all(0.7 < row["value"] <= 1 for row in rows)


def test_a_sample_that_could_not_be_scored_has_no_value_rather_than_a_constant(tmp_path):
    store, drawn = Store(tmp_path), Drawn()
    rows = scored(store, ScoreSamples(pictures=drawn, scorers=(Lightness(),)))
    texts = {row["id"]: row["text"] for row in store.artifact(drawn).table(Picture, ["id", "text"]).to_pylist()}
    assert {row["value"] is None for row in rows} == {True, False}
    assert all((row["value"] is None) == ("red" in texts[row["sample"]]) for row in rows)


def test_another_scorer_dimension_or_sample_computes_only_its_own_rows(tmp_path):
    store = Store(tmp_path)
    first = ScoreSamples(pictures=Drawn(count=6), prompts=PROMPTS, scorers=(Checker(),), shard_rows=4)
    before = {row["id"]: row for row in scored(store, first)}
    wider = ScoreSamples(pictures=Drawn(), prompts=PROMPTS, scorers=(Checker(), Lightness()), shard_rows=4)
    after = {row["id"]: row for row in scored(store, wider)}
    record = store.artifact(wider).record
    assert (record.reused_rows, record.computed_rows) == (len(before), len(after) - len(before))
    assert before.items() <= after.items()


def test_another_setting_of_a_scorer_of_the_same_name_is_scored_anew(tmp_path):
    store = Store(tmp_path)
    scored(store, ScoreSamples(pictures=Drawn(), scorers=(Lightness(),)))
    changed = ScoreSamples(pictures=Drawn(), scorers=(Lightness(channels=("red", "green")),))
    scored(store, changed)
    assert store.artifact(changed).record.reused_rows == 0


def test_a_checker_without_an_expectation_quarantines_its_samples_with_the_reason(tmp_path):
    with pytest.raises(ValueError):
        Expectation.from_json("")
    with pytest.raises(Exception, match="quarantined|error"):
        scored(Store(tmp_path), ScoreSamples(pictures=Drawn(), scorers=(Checker(),)))


def test_two_scorers_of_one_name_are_refused():
    with pytest.raises(ConfigError, match="distinct names"):
        ScoreSamples(pictures=Drawn(), scorers=(Checker(), Checker()))


class OfItsEnvironment(Scorer):
    """What this process's environment says: a number in the variable SCORER_OF_ITS_OWN."""

    convention: ClassVar = "as it is"

    name: str = "environment"

    @property
    def dimensions(self) -> tuple[str, ...]:
        return ("overall",)

    def open(self, device: str, places: Any) -> Any:
        class Opened:
            def score(self, samples):
                return np.full((len(samples), 1), float(os.environ.get("SCORER_OF_ITS_OWN", "nan")))

        return Opened()


def test_a_scorer_with_an_environment_of_its_own_is_run_in_it(ray_session, tmp_path):
    there = Resources(runtime_env={"env_vars": {"SCORER_OF_ITS_OWN": "7"}})
    stage = ScoreSamples(pictures=Drawn(count=3), scorers=(OfItsEnvironment(),), resources=there)
    store = Store(tmp_path)
    with RayExecutor(workers=1) as executor:
        Runner(store, executor, Quiet(), recipe="test").run(stage, Selection())
    assert store.artifact(stage).table(Score)["value"].to_pylist() == [7.0] * 3
    assert stage.key == ScoreSamples(pictures=Drawn(count=3), scorers=(OfItsEnvironment(),)).key


class Company(Lightness):
    """How many other samples a sample's prompt and generator have."""

    convention: ClassVar = "number"
    of_group: ClassVar = True

    name: str = "company"
    channels: tuple[str, ...] = ("overall",)

    def open(self, device: str, places: Any) -> Any:
        class Opened:
            def score(self, samples):
                return np.array([[float(len(sample.others))] for sample in samples])

        return Opened()


class Several(TableStage, Pictures):
    """Some pictures of each of two generators for one prompt."""

    name: ClassVar = "several"
    row: ClassVar = Picture

    of_second: int = 2

    def run(self, context: Any) -> Iterator[Picture]:
        prompt = group_id("a fox")
        for generator, count in (("first", 3), ("second", self.of_second)):
            for number in range(count):
                image = encode_png(np.full((8, 8, 3), 9 * number, dtype=np.uint8))
                yield Picture(row_id(prompt, generator, number), prompt, "a fox", generator, number, 0, image, 8, 8)


def test_a_measure_of_a_group_is_shown_the_other_samples_and_made_anew_where_there_are_more(tmp_path):
    store = Store(tmp_path)
    rows = scored(store, ScoreSamples(pictures=Several(), scorers=(Company(),), shard_rows=2))
    assert sorted(row["value"] for row in rows) == [1.0, 1.0, 2.0, 2.0, 2.0]
    grown = ScoreSamples(pictures=Several(of_second=3), scorers=(Company(),), shard_rows=2)
    assert [row["value"] for row in scored(store, grown)] == [2.0] * 6
    assert store.artifact(grown).record.reused_rows == 0
