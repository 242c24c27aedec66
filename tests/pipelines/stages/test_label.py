"""Votes to scores and preferences: the mean over orders takes out a position's bias; people's labels calibrate the jury."""

import math
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from infra.config import ConfigError
from pipelines.algorithms.prompting.opinion import Opinion
from pipelines.algorithms.voting.calibrated import CalibratedJury
from pipelines.miniature import generators, jurors
from pipelines.miniature.prompts import Grammar
from pipelines.schemas.votes import Pair
from pipelines.stages.imported import ImportedLabels, ImportedPictures, PairFiles
from pipelines.stages.judge import Judge, vote_of
from pipelines.stages.label import Label, mean_scores
from pipelines.stages.pair import PairSamples
from pipelines.stages.prompts import WritePrompts
from pipelines.stages.render import Render

ROW = {"id": "v", "pair_id": "p", "juror": "j", "dimension": "overall"}


def said(choice, score, *, raw=""):
    return (Opinion("overall", choice, score, None, raw),)


def test_a_vote_is_in_terms_of_the_pair_whatever_was_shown_first():
    shown_ab = vote_of(ROW | {"order": "ab"}, said("first", 2.0))
    shown_ba = vote_of(ROW | {"order": "ba"}, said("second", -2.0))
    assert (shown_ab.choice, shown_ab.score) == (shown_ba.choice, shown_ba.score) == ("a", 2.0)


def test_an_unparsable_answer_stays_as_it_is_and_has_no_score():
    vote = vote_of(ROW | {"order": "ba"}, said("unparsable", None, raw="hm"))
    assert (vote.raw, vote.choice, vote.score) == ("hm", "unparsable", None)


def test_a_score_that_is_not_a_number_is_no_vote_for_the_second_picture():
    vote = vote_of(ROW | {"order": "ab"}, said("second", math.nan))
    assert (vote.choice, vote.score) == ("unparsable", None)


def test_a_failed_case_fails_its_own_rows():
    failed = OSError("no picture")
    assert vote_of(ROW | {"order": "ab"}, failed) is failed
    assert isinstance(vote_of(ROW | {"order": "ab", "dimension": "VQ"}, said("first", 1.0)), ValueError)


def test_a_juror_that_always_says_first_has_no_opinion():
    assert mean_scores(["p", "p"], ["j", "j"], [3.0, -3.0]) == {"p": 0.0}


def test_jurors_count_equally_however_many_answers_are_missing():
    pairs, jurors, scores = ["p"] * 4, ["j", "j", "k", "k"], [1.0, 3.0, None, 4.0]
    assert mean_scores(pairs, jurors, scores) == {"p": 3.0}


def test_a_pair_without_scores_is_zero():
    assert mean_scores(["p"], ["j"], [None]) == {"p": 0.0}


class Stored:
    """A context: tables by stage name, and pictures whose file is named after their content."""

    def __init__(self, tables):
        self.tables, self.emitted, self.metrics = tables, {}, {}

    def table(self, stage, columns=None, *, name=None):
        return pa.Table.from_pylist(self.tables[stage.name if name is None else f"{stage.name}/{name}"])

    def rows(self, stage):
        return [Pair(**row) for row in self.tables[stage.name]]

    def lookup(self, stage):
        def take(ids, columns):
            return pa.table({columns[0]: [{"bytes": name.split("-")[-1].encode()} for name in ids]})

        return SimpleNamespace(take=take)

    def emit(self, name, rows):
        self.emitted[name] = list(rows)

    def metric(self, name, value):
        self.metrics[name] = value


def label_stage(**options):
    roster = generators.shipped()[:2]
    prompts = WritePrompts(source=Grammar(train=6, evaluation=6))
    pictures = Render(prompts=prompts, roster=roster, samples={one.name: 1 for one in roster})
    pairs = PairSamples(pictures=pictures)
    return Label(pairs=pairs, votes=Judge(pairs=pairs, pictures=pictures, jury=jurors.shipped()), **options)


def people():
    return ImportedLabels(pictures=ImportedPictures(source=PairFiles()))


def test_a_jury_calibrated_on_labels_of_people_gives_a_probability_whichever_picture_they_call_a():
    generator = np.random.default_rng(0)
    truth = generator.choice(["a", "b"], size=400)
    both = {"generator_a": "x", "generator_b": "y", "prompt_id": "q", "text": "t"}
    pairs = [{"id": f"p{n:03d}", "picture_a": f"r-{n}a", "picture_b": f"r-{n}b"} | both for n in range(400)]
    votes = []
    for n, right in enumerate(truth):
        word = right if generator.random() < 0.8 else "b" if right == "a" else "a"
        for juror, order, said_ in (("good", "ab", word), ("good", "ba", word), ("lazy", "ab", "a"), ("lazy", "ba", "b")):
            votes.append({"pair_id": f"p{n:03d}", "juror": juror, "order": order, "choice": said_, "score": None})
    turned = [n % 2 == 1 for n in range(200)]
    labels = [
        {"id": f"i{n}", "text": "t", "picture_a": f"i-{n}{'b' if t else 'a'}", "picture_b": f"i-{n}{'a' if t else 'b'}"}
        | {"choice": {"a": "b", "b": "a"}[truth[n]] if t else str(truth[n])}
        for n, t in enumerate(turned)
    ]
    outside = {"pair_id": "other", "dimension": "VQ", "margin": 1.0}
    stage = label_stage(panel=CalibratedJury(), truth=people())
    tables = {"pair": pairs, "judge": [vote | {"dimension": "overall"} for vote in votes], "import_labels": labels}
    found = list(stage.run(Stored(tables | {"import_labels/dimensions": [outside]})))
    unseen = found[200:]
    right = np.mean([row.choice == truth[200 + n] for n, row in enumerate(unseen)])
    assert right > 0.75
    assert abs(np.mean([row.probability for row in unseen]) - right) < 0.06
    assert stage.has_probability and not label_stage().has_probability


def test_a_calibrated_panel_without_labels_of_people_is_refused_and_so_are_labels_that_nothing_uses():
    with pytest.raises(ConfigError, match="need one another"):
        label_stage(panel=CalibratedJury())
    with pytest.raises(ConfigError, match="need one another"):
        label_stage(truth=people())
