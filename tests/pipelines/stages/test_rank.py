"""Stage rank: sets that hold every pair, each shown in an order and its reverse, and votes that labels and arena read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from actors.media import encode_png
from infra.config import ConfigError
from infra.dag.stage import Places, TableStage
from infra.identity import group_id, row_id
from infra.store.artifacts import Store
from infra.store.files import Folder
from pipelines.algorithms.prompting.pairwise import Pairwise
from pipelines.algorithms.prompting.ranking import Ranking
from pipelines.models.jurors.juror import Juror, OpenJuror, RankingOpinion
from pipelines.models.jurors.vlm import VlmJuror
from pipelines.schemas.samples import Picture
from pipelines.schemas.votes import JurorStatistics, Pair, Preference, RankingAnswer, Rating, Vote
from pipelines.stages.arena import Arena
from pipelines.stages.judge import Judge
from pipelines.stages.label import Label
from pipelines.stages.pair import PairSamples
from pipelines.stages.rank import Rank, RankedVotes
from pipelines.stages.sources import Pictures
from support.inline import computed
from tests.support.tiny_vlm import write_tiny_vlm

BROKEN = "two cats"
"""The prompt one of whose pictures does not decode."""


class Shades(TableStage, Pictures):
    """Five generators' pictures of twelve prompts: the higher the generator's number, the brighter."""

    name: ClassVar = "shades"
    row: ClassVar = Picture

    def run(self, context: Any) -> Iterator[Picture]:
        for text in (BROKEN, *(f"thing {n}" for n in range(11))):
            for number in range(5):
                image, prompt = encode_png(np.full((32, 32, 3), 50 * number, dtype=np.uint8)), group_id(text)
                broken = type(image)(b"no picture") if text == BROKEN and number == 0 else image
                yield Picture(row_id(prompt, str(number)), prompt, text, f"g{number}", 0, 0, broken, 32, 32)


class Eyes(Juror):
    """Ranks by brightness; or always as shown, which is nothing but position bias."""

    by_place: bool = False

    @property
    def dimensions(self) -> tuple[str, ...]:
        return ("overall",)

    @property
    def ranks(self) -> bool:
        return True

    def open(self, device: str, places: Places) -> OpenJuror:
        return OpenEyes(self.by_place)


class OpenEyes:
    def __init__(self, by_place: bool) -> None:
        self.by_place = by_place

    def judge(self, cases):
        raise NotImplementedError

    def rank(self, cases):
        return [self._rank(case) for case in cases]

    def _rank(self, case):
        from io import BytesIO

        from PIL import Image

        try:
            light = [float(np.asarray(Image.open(BytesIO(one))).mean()) for one in case.pictures]
        except OSError as error:
            return error
        if self.by_place:
            return RankingOpinion(tuple(range(1, len(light) + 1)), "as shown")
        return RankingOpinion(tuple(1 + sum(other > one for other in light) for one in light), "by light")


@pytest.fixture(scope="module")
def ranked(tmp_path_factory):
    """Labels and arena of three ranking jurors."""
    pictures = Shades()
    pairs = PairSamples(pictures=pictures)
    jury = (Eyes(name="light"), Eyes(name="bright"), Eyes(name="place", by_place=True))
    rankings = Rank(pairs=pairs, pictures=pictures, jury=jury, most=4, max_error_share=0.5)
    votes = RankedVotes(pairs=pairs, rankings=rankings)
    arena = Arena(labels=Label(pairs=pairs, votes=votes))
    store = Store(tmp_path_factory.mktemp("store"))
    computed(arena, store)
    return store, arena


def test_a_set_is_shown_in_an_order_and_its_reverse_and_one_that_fails_is_one_row(ranked):
    store, arena = ranked
    rankings = store.artifact(arena.labels.votes.rankings)
    rows = list(rankings.rows(RankingAnswer))
    asked = {(row.juror, tuple(row.pictures)) for row in rows}
    assert all((juror, shown[::-1]) in asked for juror, shown in asked) and len(asked) == len(rows)
    assert all(2 <= len(row.pictures) <= 4 for row in rows)
    assert {row.order for row in rows} == {"1", "1 reversed"}
    broken = [row for row in rows if row.prompt_id == group_id(BROKEN)]
    whole = [row for row in rows if row.prompt_id == group_id("thing 1")]
    assert 0 < len(broken) < len(whole)
    assert rankings.record.error_rows == len(whole) - len(broken)


def test_every_pair_has_votes_in_both_orders_of_every_juror(ranked):
    store, arena = ranked
    pairs = list(store.artifact(arena.labels.pairs).rows(Pair))
    votes = list(store.artifact(arena.labels.votes).rows(Vote))
    assert len({vote.id for vote in votes}) == len(votes)
    seen = {(vote.pair_id, vote.juror, vote.order) for vote in votes}
    whole = [pair.id for pair in pairs if pair.prompt_id != group_id(BROKEN)]
    assert {(p, j, o) for p in whole for j in ("light", "place") for o in ("ab", "ba")} <= seen


def test_labels_and_ratings_follow_the_ranking_and_the_audit_shows_who_goes_by_place(ranked):
    store, arena = ranked
    for label in store.artifact(arena.labels).rows(Preference):
        assert label.choice in (("a" if label.generator_a > label.generator_b else "b"), "tie")
    bias = {row.juror: row.position_bias for row in store.artifact(arena.labels).rows(JurorStatistics, name="jurors")}
    assert bias["place"] == 0.5 and abs(bias["light"]) < 0.02
    assert [row.generator for row in store.artifact(arena).rows(Rating)] == ["g4", "g3", "g2", "g1", "g0"]


def test_a_model_ranks_and_its_raw_answers_are_rows(tmp_path):
    weights = Folder(path=str(write_tiny_vlm("qwen2-vl", tmp_path / "vlm")))
    juror = VlmJuror(name="tiny", weights=weights, questionnaire=Ranking(max_tokens=8))
    pictures = Shades()
    pairs = PairSamples(pictures=pictures, per_prompt=2)
    other = VlmJuror(name="pairs", weights=weights, questionnaire=Pairwise())
    asked = {"pairs": pairs, "pictures": pictures, "max_error_share": 0.5}
    rankings, judged = Rank(**asked, jury=(juror,), most=3), Judge(**asked, jury=(other,))
    store = Store(tmp_path / "store")
    computed(RankedVotes(pairs=pairs, rankings=rankings, judged=judged), store)
    rows = list(store.artifact(rankings).rows(RankingAnswer))
    assert rows and all(row.raw and not row.ranks for row in rows)  # random weights rank nothing
    votes = list(store.artifact(RankedVotes(pairs=pairs, rankings=rankings, judged=judged)).rows(Vote))
    assert {vote.juror for vote in votes} == {"tiny", "pairs"}
    assert {vote.choice for vote in votes if vote.juror == "tiny"} == {"unparsable"}


def test_a_juror_that_compares_two_cannot_rank():
    pictures = Shades()
    juror = VlmJuror(name="two", weights=Folder(path=str(Path(__file__).parent)), questionnaire=Pairwise())
    with pytest.raises(ConfigError, match="two does not rank"):
        Rank(pairs=PairSamples(pictures=pictures), pictures=pictures, jury=(juror,))
