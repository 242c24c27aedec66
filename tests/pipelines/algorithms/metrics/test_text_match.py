"""Agreement of two texts: an edit distance's laws, and the cases that benchmarks of rendered text treat specially."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.algorithms.metrics.text_match import edit_distance, exact_match, quoted, similarity, word_accuracy

words = st.text("abc", max_size=6)


def test_the_distance_of_kitten_and_sitting_is_three():
    assert edit_distance("kitten", "sitting") == 3


@given(words, words, words)
def test_an_edit_distance_is_a_metric_between_the_difference_and_the_greater_of_the_lengths(a, b, c):
    assert edit_distance(a, b) == edit_distance(b, a) and (edit_distance(a, b) == 0) == (a == b)
    assert edit_distance(a, c) <= edit_distance(a, b) + edit_distance(b, c)
    assert abs(len(a) - len(b)) <= edit_distance(a, b) <= max(len(a), len(b))


def test_case_full_width_forms_and_white_space_do_not_count():
    assert exact_match("OPEN24h", asked="open 24 H") == exact_match("ＯＰＥＮ", asked="open") == 1
    assert similarity("opem", asked="OPEN") == 0.75 and similarity("", asked="open") == 0


def test_a_word_that_is_asked_for_twice_has_to_be_shown_twice():
    assert word_accuracy("no!", asked="No no, nowhere") == pytest.approx(1 / 3)
    assert word_accuracy("nowhere no No", asked="No no, nowhere") == 1


def test_an_apostrophe_is_no_quotation_mark():
    assert quoted("the dog's bowl and the dogs' bone") == []
    assert quoted("a sign 'Stop' beside ‘Go’ and \"it's here\"") == ["Stop", "Go", "it's here"]
