"""The audit of a juror, against juries whose faults are known."""

import pytest

from pipelines.algorithms.voting.audit import audit
from pipelines.algorithms.voting.ballots import Consistency, answers, ballots


def audited(rows):
    columns = [list(column) for column in zip(*rows, strict=True)]
    given = answers(columns[0], juror=columns[1], order=columns[2], choice=columns[3])
    return {row.juror: row for row in audit(given, ballots=ballots(given, options=Consistency()))}


def always(juror, *, ab, ba, pairs=10):
    return [(f"p{pair}", juror, order, said) for pair in range(pairs) for order, said in (("ab", ab), ("ba", ba))]


def test_a_juror_that_takes_the_first_is_biased_and_always_contradicts_itself():
    row = audited(always("first", ab="a", ba="b"))["first"]
    assert (row.position_bias, row.contradiction_rate, row.tie_rate, row.failure_rate) == (0.5, 1.0, 0.0, 0.0)
    assert row.votes == 20


def test_a_juror_that_takes_the_second_has_the_opposite_bias():
    assert audited(always("second", ab="b", ba="a"))["second"].position_bias == -0.5


def test_a_juror_with_an_opinion_has_no_bias():
    row = audited(always("firm", ab="a", ba="a"))["firm"]
    assert (row.position_bias, row.contradiction_rate) == (0.0, 0.0)


def test_ties_are_counted_among_readable_answers_and_failures_among_all():
    row = audited(always("j", ab="tie", ba="unparsable"))["j"]
    assert (row.tie_rate, row.failure_rate) == (1.0, 0.5)
    assert row.contradiction_rate is None and row.position_bias is None


def test_agreement_leaves_the_juror_itself_out():
    rows = always("one", ab="a", ba="a") + always("two", ab="a", ba="a") + always("three", ab="b", ba="b")
    figures = audited(rows)
    assert figures["three"].agreement_with_panel == 0.0
    # Without itself, `one` faces an a and a b: a tie, with which it does not agree.
    assert figures["one"].agreement_with_panel == 0.0


def test_a_panel_that_agrees_agrees():
    figures = audited(always("one", ab="a", ba="a") + always("two", ab="a", ba="a"))
    assert [row.agreement_with_panel for row in figures.values()] == [1.0, 1.0]


def test_a_juror_alone_has_no_panel():
    assert audited(always("one", ab="a", ba="a"))["one"].agreement_with_panel is None


def test_a_panel_is_compared_only_where_both_sides_speak():
    rows = [("p0", "one", "ab", "a"), ("p0", "two", "ab", "a"), ("p1", "one", "ab", "b"), ("p2", "two", "ab", "b")]
    assert audited(rows)["one"].agreement_with_panel == pytest.approx(1.0)


def test_position_bias_is_the_probability_of_the_first_minus_one_half():
    # Of ten pairs shown once, with ties beside: the juror chooses the picture shown first on six.
    rows = [(f"p{pair}", "j", "ab", "a" if pair < 6 else "b") for pair in range(10)]
    rows += [(f"tied{pair}", "j", "ab", "tie") for pair in range(5)]
    assert audited(rows)["j"].position_bias == pytest.approx(0.1)
