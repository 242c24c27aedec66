"""What both orders of a juror come to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.config import ConfigError
from pipelines.algorithms.voting.ballots import CHOICES, NOTHING, TIE, A, B, Consistency, answers, ballots

choice = st.sampled_from(CHOICES)


def both(first, second, **options):
    """The ballot of one juror that answered `first` when a was shown first, `second` when b was."""
    given = answers(["p", "p"], juror=["j", "j"], order=["ab", "ba"], choice=[first, second])
    return ballots(given, options=Consistency(**options))[0, 0]


def test_a_juror_that_says_the_same_twice_is_believed():
    assert both("a", "a") == A
    assert both("b", "b") == B
    assert both("tie", "tie") == TIE


def test_a_juror_that_contradicts_itself_has_said_tie_or_nothing():
    assert both("a", "b") == TIE
    assert both("tie", "b") == TIE
    assert both("a", "b", contradiction="abstain") == NOTHING


def test_an_unparsable_answer_is_never_guessed():
    assert both("unparsable", "unparsable") == NOTHING
    assert both("a", "unparsable") == NOTHING
    assert both("a", "unparsable", unconfirmed="count") == A


def test_a_juror_that_answers_by_position_never_decides():
    first_shown = [{"ab": "a", "ba": "b"}[order] for order in ("ab", "ba")]
    assert both(*first_shown) == TIE


@given(first=choice, second=choice)
def test_the_order_of_the_two_answers_does_not_matter(first, second):
    assert both(first, second) == both(second, first)


@given(first=choice, second=choice)
def test_exchanging_the_pictures_exchanges_the_ballot(first, second):
    swap = {"a": "b", "b": "a"}
    exchanged = both(swap.get(first, first), swap.get(second, second))
    assert exchanged == {A: B, B: A}.get(both(first, second), both(first, second))


def test_jurors_and_pairs_are_numbered_by_name_and_gaps_are_nothing():
    given = answers(["q", "p"], juror=["z", "y"], order=["ab", "ab"], choice=["a", "b"])
    assert given.pair_ids == ("p", "q") and given.juror_names == ("y", "z")
    assert ballots(given, options=Consistency()).tolist() == [[B, NOTHING], [NOTHING, A]]


def test_no_votes_are_no_ballots():
    given = answers([], juror=[], order=[], choice=[])
    assert ballots(given, options=Consistency()).shape == (0, 0)


def test_an_unknown_choice_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="known are a, b, tie, unparsable"):
        answers(["p"], juror=["j"], order=["ab"], choice=["A>B"])
