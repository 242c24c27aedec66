"""The posterior gap: Table 1 of ArenaPO, its limits, and a simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from pipelines.algorithms.rating.gap import posterior_gap, posterior_gaps

TABLE_1 = [
    (28.21, 0.80, 23.41, 0.77, 4.8038),
    (28.54, 0.81, 24.55, 0.78, 3.9928),
    (23.41, 0.77, 21.55, 0.78, 1.9662),
    (22.80, 0.80, 22.67, 0.78, 0.9406),
    (22.97, 0.83, 26.59, 0.82, 0.3211),
]


def gap(mu_winner, sigma_winner, mu_loser, sigma_loser):
    return posterior_gap(mu_winner, sigma_winner=sigma_winner, mu_loser=mu_loser, sigma_loser=sigma_loser)


@pytest.mark.parametrize("row", TABLE_1)
def test_table_1_of_arenapo_comes_out_to_the_rounding_of_its_inputs(row):
    *strengths, published = row
    ends = []
    for winner in (-0.005, 0.005):
        for loser in (-0.005, 0.005):
            for sigma in (-0.005, 0.005):
                mu_w, sigma_w, mu_l, sigma_l = strengths
                ends.append(gap(mu_w + winner, sigma_w + sigma, mu_l + loser, sigma_l + sigma))
    assert min(ends) - 5e-5 <= published <= max(ends) + 5e-5


@given(m=st.floats(-1e4, 1e4), s=st.floats(1e-3, 20))
def test_the_gap_is_above_zero_and_above_the_lead_of_the_means(m, s):
    value = gap(m, s, 0.0, 0.0)
    assert math.isfinite(value)
    assert value > 0
    assert value >= m * (1 - 1e-15 * (m > 0))


@given(m=st.floats(-100, 30))
def test_the_gap_agrees_with_log_ndtr_where_that_keeps_its_digits(m):
    ratio = math.exp(-0.5 * m * m - 0.5 * math.log(2 * math.pi) - special.log_ndtr(m))
    assert gap(m, 1.0, 0.0, 0.0) == pytest.approx(m + ratio, rel=1e-6, abs=1e-15 * max(1.0, abs(m)) ** 3)


@pytest.mark.parametrize("m", [-38.0, -39.0, -1e3, -1e6])
def test_the_most_surprising_win_has_a_small_gap_and_no_nan(m):
    assert gap(m, 1.0, 0.0, 0.0) == pytest.approx(1 / -m, rel=3e-3)


def test_a_win_without_any_uncertainty_has_the_gap_of_the_means():
    assert gap(3.0, 0.0, 1.0, 0.0) == 2.0
    assert gap(1.0, 0.0, 3.0, 0.0) == 0.0


def test_the_gap_is_the_mean_of_simulated_wins():
    draws = np.random.default_rng(0).normal(-0.7, math.hypot(0.9, 1.2), 2_000_000)
    assert gap(20.0, 0.9, 20.7, 1.2) == pytest.approx(draws[draws > 0].mean(), rel=2e-3)


def test_gaps_of_pairs_are_those_of_their_generators_and_missing_where_one_is_not_rated():
    strengths = {"x": (25.0, 0.8), "y": (27.0, 0.9)}
    gaps = posterior_gaps(["x", "y", "z", "x"], losers=["y", "x", "x", "y"], strengths=strengths, beta=0.0)
    assert gaps == [gap(25.0, 0.8, 27.0, 0.9), gap(27.0, 0.9, 25.0, 0.8), None, gap(25.0, 0.8, 27.0, 0.9)]


@pytest.mark.parametrize(("row", "expected"), [(TABLE_1[0], 7.0), (TABLE_1[3], 4.8), (TABLE_1[4], 3.7)])
def test_with_the_spread_of_single_pictures_table_1_is_larger_and_flatter(row, expected):
    mu_winner, sigma_winner, mu_loser, sigma_loser, published = row
    found = posterior_gap(mu_winner, sigma_winner=sigma_winner, mu_loser=mu_loser, sigma_loser=sigma_loser, beta=25 / 6)
    assert found == pytest.approx(expected, abs=0.06) and found > published


def test_with_the_spread_of_single_pictures_the_gap_is_the_mean_of_simulated_wins():
    generator = np.random.default_rng(0)
    strengths = generator.normal([20.0, 20.7], [0.9, 1.2], (2_000_000, 2))
    pictures = generator.normal(strengths, 2.0)
    leads = pictures[:, 0] - pictures[:, 1]
    expected = leads[leads > 0].mean()
    found = posterior_gap(20.0, sigma_winner=0.9, mu_loser=20.7, sigma_loser=1.2, beta=2.0)
    assert found == pytest.approx(expected, rel=2e-3)


def test_certain_strengths_leave_no_gap_to_a_surprising_win_unless_pictures_vary():
    options = {"sigma_winner": 0.1, "mu_loser": 22.0, "sigma_loser": 0.1}
    assert posterior_gap(20.0, **options) < 0.02
    assert posterior_gap(20.0, **options, beta=25 / 6) > 3.5
