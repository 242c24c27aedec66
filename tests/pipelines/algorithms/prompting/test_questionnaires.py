"""Questionnaires: what is asked, and that no answer is guessed."""

from __future__ import annotations

import math
import pickle
from dataclasses import dataclass

import pytest

from infra.config import ConfigError
from pipelines.algorithms.prompting.pairwise import Pairwise
from pipelines.algorithms.prompting.pointwise import Pointwise


@dataclass(frozen=True)
class Said:
    text: str
    log_probabilities: dict[str, float]


def _pairwise(text, *, first, second):
    return Said(text, {"A": math.log(first), "B": math.log(second), "tie": math.log(0.01)})


def _pointwise(text, *, yes):
    return Said(text, {"yes": math.log(yes), "no": math.log(1 - yes)})


def test_a_pairwise_question_shows_both_pictures_in_the_order_given():
    (question,) = Pairwise().questions("a red {box}", first=b"1", second=b"2")
    assert question.pictures == (b"1", b"2")
    assert [part for part in question.parts if isinstance(part, int)] == [0, 1]
    assert "a red {box}" in question.parts[-1]


@pytest.mark.parametrize(("said", "choice"), [("A", "first"), ("B", "second"), ("tie", "tie"), (" A ", "first")])
def test_the_letter_said_is_the_choice(said, choice):
    assert Pairwise().verdict([_pairwise(said, first=0.5, second=0.4)]).choice == choice


def test_a_pairwise_score_is_the_log_odds_of_the_first():
    assert Pairwise().verdict([_pairwise("A", first=0.6, second=0.2)]).score == pytest.approx(math.log(3), abs=1e-4)


@pytest.mark.parametrize("said", ["", "a", "red", "A or B"])
def test_what_is_no_answer_stays_unparsable_and_has_no_score(said):
    verdict = Pairwise().verdict([_pairwise(said, first=0.6, second=0.2)])
    assert (verdict.raw, verdict.choice, verdict.score) == (said, "unparsable", None)


def test_a_pointwise_verdict_is_the_difference_of_log_odds_and_knows_no_position():
    good, bad = _pointwise("yes", yes=0.8), _pointwise("no", yes=0.4)
    forth, back = Pointwise().verdict([good, bad]), Pointwise().verdict([bad, good])
    assert (forth.choice, back.choice) == ("first", "second")
    assert forth.score == -back.score == pytest.approx(math.log(4 / (2 / 3)), abs=1e-4)


def test_pointwise_answers_within_the_threshold_tie():
    near = [_pointwise("yes", yes=0.80), _pointwise("yes", yes=0.79)]
    assert Pointwise(tie_within=0.2).verdict(near).choice == "tie"
    assert Pointwise(tie_within=0).verdict(near).choice == "first"


def test_one_unparsable_pointwise_answer_makes_the_pair_unparsable():
    verdict = Pointwise().verdict([_pointwise("yes", yes=0.9), _pointwise("maybe", yes=0.1)])
    assert (verdict.raw, verdict.choice, verdict.score) == ("yes | maybe", "unparsable", None)


def test_a_pointwise_questionnaire_asks_the_same_about_each_picture():
    first, second = Pointwise().questions("two boxes", first=b"1", second=b"2")
    assert first.parts == second.parts == (0, "does this show two boxes?")
    assert (first.pictures, second.pictures) == ((b"1",), (b"2",))


def test_questionnaires_are_picklable_and_refuse_what_cannot_be_asked():
    assert pickle.loads(pickle.dumps(Pointwise(tie_within=1))) == Pointwise(tie_within=1)
    with pytest.raises(ConfigError, match="caption"):
        Pairwise(after="which is better?")
    with pytest.raises(ConfigError, match="differ"):
        Pointwise(yes="no")
