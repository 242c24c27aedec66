"""Accuracies of reward models: exact zeros, the best tie threshold against an exhaustive search, the table by time."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from infra.config import ConfigError
from pipelines.algorithms.diffusion.ddpm import DiffusionPath
from pipelines.algorithms.metrics.bootstrap import Bootstrap
from pipelines.algorithms.reward.accuracy import BANDS, GRID, by_band, by_time, ties_excluded, ties_included

FEW = Bootstrap(resamples=200)
pairs = st.lists(st.tuples(st.integers(-4, 4), st.sampled_from([-1, 0, 1])), min_size=1, max_size=30)


def excluded(difference, outcome, *, groups=None, zero="wrong"):
    groups = list(range(len(difference))) if groups is None else groups
    generator = np.random.default_rng(0)
    return ties_excluded(difference, outcome=outcome, groups=groups, generator=generator, bootstrap=FEW, zero=zero)


def columns(pairs):
    return np.array([float(d) for d, _ in pairs]), np.array([o for _, o in pairs])


def test_an_exact_zero_is_wrong_and_a_tie_is_not_asked():
    accuracy = excluded(np.array([1.0, 0.0, -2.0, 3.0]), np.array([1, 1, -1, 0]))
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
    if outcome.any():
        assert excluded(difference, outcome) == excluded(-difference, -outcome)


def test_the_table_has_a_row_for_each_time():
    differences = np.array([[1.0, 1.0, -1.0], [1.0, -1.0, 1.0]])
    options = {"groups": ["x", "y", "z"], "generator": np.random.default_rng(0), "bootstrap": FEW}
    rows = by_time(differences, t=[0.1, 0.9], outcome=np.array([1, 1, -1]), **options)
    assert [row.t for row in rows] == [0.1, 0.9]
    assert [row.excluded.estimate for row in rows] == pytest.approx([1.0, 1 / 3])
    assert [row.included.accuracy for row in rows] == pytest.approx([1.0, 1 / 3])
    assert all(row.excluded.low <= row.excluded.estimate <= row.excluded.high and row.excluded.n == 3 for row in rows)


def test_failed_rewards_are_refused_and_not_counted_as_wrong():
    with pytest.raises(ConfigError, match="mask"):
        excluded(np.array([np.nan]), np.array([1]))


def test_a_random_scorer_of_three_grades_is_right_on_half_when_zeros_count_half():
    grades = np.array([[a - b for a in range(3) for b in range(3)]], dtype=float).ravel()
    outcome = np.ones(9, dtype=int)
    assert excluded(grades, outcome).estimate == pytest.approx(1 / 3)
    assert excluded(grades, outcome, zero="half").estimate == pytest.approx(1 / 2)


def test_pairs_of_one_prompt_are_resampled_together():
    difference, outcome = np.tile([1.0, -1.0], 40), np.ones(80, dtype=int)
    apart = excluded(difference, outcome)
    together = excluded(difference, outcome, groups=[i % 2 + 2 * (i // 20) for i in range(80)])
    assert together.high - together.low > 2 * (apart.high - apart.low)


def bands(differences, *, groups, t=GRID):
    generator = np.random.default_rng(0)
    outcome = np.ones(differences.shape[1], dtype=int)
    return by_band(differences, t=t, outcome=outcome, groups=groups, generator=generator, bootstrap=FEW)


def test_the_grid_is_the_papers_steps_of_a_thousand():
    path = DiffusionPath(torch.linspace(0.9, 0.1, 1000), "epsilon")
    assert path.timesteps(torch.tensor(GRID)).tolist() == [0, *range(1, 1000, 100)]
    assert BANDS["low"] == (0.001, 0.101, 0.201, 0.301, 0.401)
    assert BANDS["high"] == (0.501, 0.601, 0.701, 0.801, 0.901)
    assert BANDS["low"] + BANDS["high"] == BANDS["all"]


def test_a_band_is_the_mean_of_its_times_and_clean_latents_are_in_none():
    differences = np.random.default_rng(3).normal(0.2, 1, (len(GRID), 40))
    found = bands(differences, groups=list(range(40)))
    right = (differences > 0).mean(1)
    assert found["low"].estimate == pytest.approx(right[1:6].mean())
    assert found["high"].estimate == pytest.approx(right[6:].mean())
    assert found["all"].estimate == pytest.approx((found["low"].estimate + found["high"].estimate) / 2)
    assert found["all"].n == 40
    differences[0] = -1
    assert bands(differences, groups=list(range(40))) == found


def test_ten_times_of_the_same_answers_are_no_more_evidence_than_one():
    one = np.random.default_rng(4).normal(0.2, 1, 60)
    found = bands(np.tile(one, (len(GRID), 1)), groups=list(range(60)))
    single = excluded(one, np.ones(60, dtype=int))
    assert found["all"].estimate == pytest.approx(single.estimate)
    assert found["all"].high - found["all"].low == pytest.approx(single.high - single.low, rel=0.2)


def test_a_mean_over_times_that_were_not_measured_is_refused():
    with pytest.raises(ConfigError, match="t = 0.901"):
        bands(np.ones((len(GRID) - 1, 3)), groups=[1, 2, 3], t=GRID[:-1])
