"""A measure is held out exactly when nothing that judges in it is an ancestor of the tuned weights."""

from itertools import combinations

import pytest

from pipelines.miniature import jurors
from pipelines.miniature.scorers import Checker
from pipelines.recipes.miniature import miniature
from pipelines.stages.score import ScoreSamples
from pipelines.training.teachers import judges_in, teachers_of

NAMES = tuple(juror.name for juror in jurors.shipped())
JURIES = [jury for size in range(1, len(NAMES) + 1) for jury in combinations(NAMES, size)]


def evaluation(jury):
    return miniature(jury=jury).evaluate


def teachers(jury):
    return teachers_of(evaluation(jury).pictures.makers["policy-tuned"])


def members(jury):
    return [juror for juror in jurors.shipped() if juror.name in jury]


@pytest.mark.parametrize("jury", JURIES)
def test_a_jury_is_held_out_exactly_when_it_shares_no_juror_with_the_one_that_taught(jury):
    taught = teachers(jury)
    for other in JURIES:
        assert bool(taught & judges_in(members(other))) == bool(set(jury) & set(other)), other


@pytest.mark.parametrize("jury", JURIES[:3])
def test_a_reward_model_is_held_out_exactly_when_other_jurors_taught_it(jury):
    taught = teachers(jury)
    for other in JURIES:
        reward = evaluation(other).scores[0].scorers[1]
        assert reward.name == "reward" and bool(taught & judges_in([reward])) == bool(set(jury) & set(other)), other


def test_the_checker_taught_nobody_and_weights_that_no_stage_made_have_no_teachers():
    assert not teachers(NAMES) & judges_in([Checker()])
    assert teachers_of(evaluation(NAMES).pictures.makers["policy"]) == frozenset()


def test_another_name_and_another_question_do_not_make_another_juror():
    juror = members(NAMES)[0]
    renamed = juror.model_copy(update={"name": "stranger"})
    asked = juror.model_copy(update={"name": "stranger", "questionnaire": members(NAMES)[1].questionnaire})
    assert teachers(NAMES[:1]) & judges_in([renamed]) and teachers(NAMES[:1]) & judges_in([asked])


def test_a_scorer_above_the_weights_taught_them_under_any_name():
    made = miniature()
    scored = ScoreSamples(pictures=made.evaluate.pictures, scorers=(Checker(name="other"),))
    chosen_by_it = made.evaluate.model_copy(update={"scores": (scored,)})
    assert judges_in([Checker()]) <= teachers_of(chosen_by_it)
