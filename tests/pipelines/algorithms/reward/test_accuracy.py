"""Accuracies of reward models: exact zeros, the best tie threshold against an exhaustive search, the table by time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.config import ConfigError
from pipelines.algorithms.reward.accuracy import by_time, ties_excluded, ties_included

pairs = st.lists(st.tuples(st.integers(-4, 4), st.sampled_from([-1, 0, 1])), min_size=1, max_size=30)


def columns(pairs):
    return np.array([float(d) for d, _ in pairs]), np.array([o for _, o in pairs])


def test_an_exact_zero_is_wrong_and_a_tie_is_not_asked():
    accuracy = ties_excluded(np.array([1.0, 0.0, -2.0, 3.0]), outcome=np.array([1, 1, -1, 0]))
    assert accuracy.estimate == pytest.approx(2 / 3)
    assert accuracy.n == 3


@given(pairs=pairs)
def test_the_threshold_is_the_best_of_all(pairs):
    difference, outcome = columns(pairs)
    found = ties_included(difference, outcome=outcome)
    predicted = {s: np.where(np.abs(difference) <= s, 0, np.sign(difference)) for s in [-1.0, *np.abs(difference)]}
    # Without a threshold nothing is called a tie, so an exact 0 is wrong.
    right = {s: ((p == outcome) & ~((s < 0) & (difference == 0))).mean() for s, p in predicted.items()}
    assert found.accuracy == pytest.approx(max(right.values()))
    assert right[found.threshold] == pytest.approx(found.accuracy)


@given(pairs=pairs)
def test_exchanging_all_pictures_changes_no_accuracy(pairs):
    difference, outcome = columns(pairs)
    assert ties_included(-difference, outcome=-outcome) == ties_included(difference, outcome=outcome)
    there, back = ties_excluded(difference, outcome=outcome), ties_excluded(-difference, outcome=-outcome)
    assert there.low == back.low and there.high == back.high


def test_the_table_has_a_row_for_each_time():
    differences = np.array([[1.0, 1.0, -1.0], [1.0, -1.0, 1.0]])
    rows = by_time(differences, t=[0.1, 0.9], outcome=np.array([1, 1, -1]))
    assert [row.t for row in rows] == [0.1, 0.9]
    assert [row.accuracy for row in rows] == pytest.approx([1.0, 1 / 3])
    assert all(row.low < row.accuracy <= row.high and row.pairs == 3 for row in rows)


def test_failed_rewards_are_refused_and_not_counted_as_wrong():
    with pytest.raises(ConfigError, match="mask"):
        ties_excluded(np.array([np.nan]), outcome=np.array([1]))
