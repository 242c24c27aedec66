"""Votes to scores: the mean over orders takes out a bias for a position."""

import math

from pipelines.algorithms.prompting.opinion import Opinion
from pipelines.stages.judge import vote_of
from pipelines.stages.label import mean_scores

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
