"""Stage judge: which questions are asked, and what a juror that is no language model answers."""

from collections.abc import Iterator
from itertools import product
from typing import Any, ClassVar

import pytest

from actors.media import encode_png
from infra.dag.plan import CachePolicy, Planner
from infra.dag.source import Sources
from infra.dag.stage import TableStage, topological
from infra.identity import group_id, row_id
from infra.store.artifacts import Store
from infra.store.files import Folder
from pipelines.models.jurors.by_score import ScoreJuror
from pipelines.models.scorers.pickscore import PickScore
from pipelines.models.scorers.scorer import Sample
from pipelines.recipes.miniature import miniature
from pipelines.schemas.samples import Picture
from pipelines.schemas.votes import Pair, Vote
from pipelines.stages.judge import Judge
from pipelines.stages.pair import PairSamples
from pipelines.stages.sources import Pictures
from support.inline import computed
from tests.support.places import NOWHERE
from tests.support.tiny_scorers import picture, write_clip


@pytest.mark.parametrize("node", ["render", "render[evaluation]", "score[evaluation]", "judge[evaluation]"])
def test_the_number_of_cells_is_foreseen_without_making_them(node, tmp_path):
    planner = Planner(Store(tmp_path), CachePolicy(), Sources(None))
    stages = {stage.node: stage for stage in topological(miniature(prompts=6, evaluation=9, policy_samples=3))}
    assert stages[node].cell_count(planner.foreseen) == stages[node].cells(planner.foreseen).num_rows > 0


def test_the_number_of_votes_is_foreseen_without_making_their_cells(tmp_path):
    planner = Planner(Store(tmp_path), CachePolicy(), Sources(None))
    stages = {stage.node: stage for stage in topological(miniature(prompts=6, evaluation=6, policy_samples=3))}
    judge = stages["judge"]
    assert judge.cell_count(planner.foreseen) == judge.cells(planner.foreseen).num_rows > 0
    plans = {name: planner.plan(stage) for name, stage in stages.items()}
    assert (plans["judge"].rows, plans["judge"].to_do) == (judge.cell_count(planner.foreseen),) * 2


class Noise(TableStage, Pictures):
    """Two generators' pictures of two prompts, each another noise."""

    name: ClassVar = "noise"
    row: ClassVar = Picture

    def run(self, context: Any) -> Iterator[Picture]:
        for place, (text, generator) in enumerate(product(("a red fox", "two cats"), ("first", "second"))):
            image, prompt = encode_png(picture(place, height=32, width=32)), group_id(text)
            yield Picture(row_id(prompt, generator), prompt, text, generator, 0, 0, image, 32, 32)


def test_a_score_is_a_juror_whose_votes_are_differences_of_scores_the_same_in_both_orders(tmp_path):
    scorer = PickScore(weights=Folder(path=str(write_clip(tmp_path / "clip", seed=2))))
    pictures = Noise()
    pairs = PairSamples(pictures=pictures)
    stage = Judge(pairs=pairs, pictures=pictures, jury=(ScoreJuror(name="pickscore", scorer=scorer),))
    store = Store(tmp_path / "store")
    computed(stage, store)
    votes = store.artifact(stage).table(Vote).to_pylist()
    assert len(votes) == 4 and {vote["dimension"] for vote in votes} == {"overall"}
    shown = {row["id"]: row for row in store.artifact(pictures).table(Picture).to_pylist()}
    opened = scorer.open("cpu", NOWHERE)
    for pair in store.artifact(pairs).table(Pair).to_pylist():
        files = [Sample(shown[pair[side]]["image"]["bytes"], "image", pair["text"]) for side in ("picture_a", "picture_b")]
        a, b = opened.score(files)[:, 0]
        said = [vote for vote in votes if vote["pair_id"] == pair["id"]]
        assert [vote["score"] for vote in said] == pytest.approx([a - b] * 2, abs=1e-4)
        assert [vote["choice"] for vote in said] == ["a" if a > b else "b"] * 2
