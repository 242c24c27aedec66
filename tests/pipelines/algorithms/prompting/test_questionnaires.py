"""Questionnaires: what is asked, and that no answer is guessed."""

from __future__ import annotations

import math
import pickle

import pytest

from actors.serving.engine import Answer
from infra.config import ConfigError
from pipelines.algorithms.prompting.dimensions import Dimensions
from pipelines.algorithms.prompting.grammar import AnswerGrammar
from pipelines.algorithms.prompting.likert import Likert
from pipelines.algorithms.prompting.pairwise import Pairwise
from pipelines.algorithms.prompting.pointwise import Pointwise


def the(questionnaire, answers):
    (opinion,) = questionnaire.opinions(answers)
    return opinion


def _pairwise(text, *, first, second):
    return Answer(text, {"A": math.log(first), "B": math.log(second), "tie": math.log(0.01)})


def _pointwise(text, *, yes):
    return Answer(text, {"yes": math.log(yes), "no": math.log(1 - yes)})


def test_a_pairwise_question_shows_both_pictures_in_the_order_given():
    (question,) = Pairwise().questions("a red {box}", first=b"1", second=b"2")
    assert question.pictures == (b"1", b"2")
    assert [part for part in question.parts if isinstance(part, int)] == [0, 1]
    assert "a red {box}" in question.parts[-1]


@pytest.mark.parametrize(("said", "choice"), [("A", "first"), ("B", "second"), ("tie", "tie"), (" A ", "first")])
def test_the_letter_said_is_the_choice(said, choice):
    assert the(Pairwise(), [_pairwise(said, first=0.5, second=0.4)]).choice == choice


def test_a_pairwise_score_is_the_log_odds_of_the_first():
    assert the(Pairwise(), [_pairwise("A", first=0.6, second=0.2)]).score == pytest.approx(math.log(3), abs=1e-4)


@pytest.mark.parametrize("said", ["", "a", "red", "A or B"])
def test_what_is_no_answer_stays_unparsable_and_has_no_score(said):
    verdict = the(Pairwise(), [_pairwise(said, first=0.6, second=0.2)])
    assert (verdict.raw, verdict.choice, verdict.score) == (said, "unparsable", None)


def test_a_pointwise_verdict_is_the_difference_of_log_odds_and_knows_no_position():
    good, bad = _pointwise("yes", yes=0.8), _pointwise("no", yes=0.4)
    forth, back = the(Pointwise(), [good, bad]), the(Pointwise(), [bad, good])
    assert (forth.choice, back.choice) == ("first", "second")
    assert forth.score == -back.score == pytest.approx(math.log(4 / (2 / 3)), abs=1e-4)


def test_pointwise_answers_within_the_threshold_tie():
    near = [_pointwise("yes", yes=0.80), _pointwise("yes", yes=0.79)]
    assert the(Pointwise(tie_within=0.2), near).choice == "tie"
    assert the(Pointwise(tie_within=0), near).choice == "first"


def test_one_unparsable_pointwise_answer_makes_the_pair_unparsable():
    verdict = the(Pointwise(), [_pointwise("yes", yes=0.9), _pointwise("maybe", yes=0.1)])
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


def _graded(*shares):
    best = max(range(5), key=shares.__getitem__)
    return Answer(str(best + 1), {str(k): math.log(share) for k, share in enumerate(shares, start=1)})


def test_a_likert_grade_is_the_most_likely_and_the_score_the_expectation():
    alone = the(Likert(), [_graded(0.1, 0.1, 0.2, 0.5, 0.1)])
    assert (alone.choice, alone.grade) == (None, 4)
    assert alone.score == pytest.approx(0.1 + 0.2 + 0.6 + 2.0 + 0.5)


def test_likert_compares_expected_grades_where_the_most_likely_are_equal():
    sure, doubtful = _graded(0.01, 0.01, 0.02, 0.06, 0.9), _graded(0.2, 0.1, 0.1, 0.2, 0.4)
    said = the(Likert(dimension="VQ"), [doubtful, sure])
    assert (said.dimension, said.choice) == ("VQ", "second")


@pytest.mark.parametrize("questionnaire", [Pairwise(), Pointwise(), Likert()])
def test_a_juror_that_answers_nan_is_unparsable(questionnaire):
    questions = questionnaire.questions("a box", first=b"1", second=b"2")
    said = the(questionnaire, [Answer(q.answers[0], dict.fromkeys(q.answers, math.nan)) for q in questions])
    assert (said.choice, said.score) == ("unparsable", None)


ASKED = {"VQ": "which looks better?", "TA": "which fits the text?"}


def test_a_turn_for_each_dimension_has_a_score_for_each():
    asked = Dimensions(asked=ASKED)
    questions = asked.questions("a box", first=b"1", second=b"2")
    assert all(q.parts[-1].endswith(ASKED[name]) for q, name in zip(questions, asked.dimensions, strict=True))
    one, other = asked.opinions([_pairwise("A", first=0.6, second=0.2), _pairwise("B", first=0.1, second=0.8)])
    assert (one.dimension, one.choice, one.score > 0) == ("TA", "first", True)
    assert (other.dimension, other.choice, other.score < 0) == ("VQ", "second", True)


def test_one_turn_is_free_text_and_a_missing_or_doubled_line_is_unparsable():
    asked = Dimensions(asked=ASKED | {"MQ": "which moves better?"}, turns="one")
    (question,) = asked.questions("a box", first=b"1", second=b"2")
    assert question.answers == () and all(name in question.parts[-1] for name in asked.dimensions)
    said = asked.opinions([Answer("VQ: A\n- TA: tie.\nTA: B")])
    assert {one.dimension: one.choice for one in said} == {"MQ": "unparsable", "TA": "unparsable", "VQ": "first"}
    assert asked.opinions([Answer("TA: **tie**")])[1].choice == "tie"


def test_each_dimension_may_be_graded_picture_by_picture_in_one_turn_or_several():
    each = Likert(after="{question} of {caption}, 1 to 5")
    several = Dimensions(asked=ASKED, each=each)
    assert len(several.questions("a box", first=b"1", second=b"2")) == 4
    high, low = _graded(0.1, 0.1, 0.1, 0.1, 0.6), _graded(0.6, 0.1, 0.1, 0.1, 0.1)
    said = several.opinions([high, low, low, high])
    assert [(one.dimension, one.choice) for one in said] == [("TA", "first"), ("VQ", "second")]
    whole = several.model_copy(update={"turns": "one"})
    assert len(whole.questions("a box", first=b"1", second=b"2")) == 2
    said = whole.opinions([Answer("TA: 4\nVQ: 2"), Answer("TA: 4\nVQ: 5")])
    assert [(one.choice, one.score) for one in said] == [("tie", 0.0), ("second", -3.0)]


def test_dimensions_that_would_all_ask_the_same_are_refused():
    with pytest.raises(ConfigError, match="question"):
        Dimensions(asked=ASKED, each=Pairwise())


def test_without_probabilities_the_words_decide_and_only_grades_have_scores():
    one = the(Pairwise(), [Answer("A")])
    assert (one.choice, one.score) == ("first", None)
    assert [the(Pointwise(), [Answer(a), Answer(b)]).choice for a, b in (("yes", "no"), ("no", "no"))] == ["first", "tie"]
    graded = the(Likert(), [Answer("long text", read="2"), Answer("longer", read="5")])
    assert (graded.choice, graded.score, graded.raw) == ("second", -3.0, "long text | longer")


def test_a_grammar_reads_what_stands_behind_its_marks_alone():
    grammar = AnswerGrammar()
    assert grammar.word("A or B?\nAnswer: B.", ("A", "B")) == "B"
    assert grammar.word("Answer: A, no, B", ("A", "B")) == grammar.word("it is A", ("A", "B")) == ""
    boxed = AnswerGrammar(pattern=r"boxed\{(?P<answer>{answers})\}", ignore_case=True)
    assert boxed.word("boxed{a} and boxed{A}", ("A", "B")) == "A"
    assert boxed.word("boxed{A} and boxed{B}", ("A", "B")) == ""
    for pattern in ("(?P<answer>A)", "({answers})", "(?P<answer>{answers}"):
        with pytest.raises(ConfigError, match="pattern"):
            AnswerGrammar(pattern=pattern)
