"""Win rates on identical seeds."""

import numpy as np
import pytest

from infra.config import ConfigError
from pipelines.algorithms.metrics.bootstrap import Bootstrap
from pipelines.algorithms.metrics.win_rate import decided_win_rate, win_rate, wins


def rate(outcomes, *, base_seeds=None, tuned_seeds=None):
    seeds = list(range(len(outcomes)))
    return win_rate(
        np.array(outcomes),
        base_seeds=base_seeds or seeds,
        tuned_seeds=tuned_seeds or seeds,
        groups=seeds,
        generator=np.random.default_rng(0),
        options=Bootstrap(resamples=500),
    )


def test_a_tie_is_half_a_win():
    assert wins(np.array([1.0, 2.0, 3.0]), tuned=np.array([2.0, 2.0, 2.0])).tolist() == [1.0, 0.5, 0.0]


def test_a_generator_against_itself_wins_half():
    scores = np.random.default_rng(0).normal(size=20)
    found = rate(wins(scores, tuned=scores))
    assert (found.low, found.estimate, found.high) == (0.5, 0.5, 0.5)


def test_exchanging_base_and_tuned_gives_the_complement():
    generator = np.random.default_rng(1)
    base, tuned = generator.normal(size=100), generator.normal(size=100)
    there, back = rate(wins(base, tuned=tuned)), rate(wins(tuned, tuned=base))
    assert there.estimate == pytest.approx(1 - back.estimate)
    assert there.low == pytest.approx(1 - back.high)


def test_a_failed_comparison_leaves_the_rate():
    found = rate([1.0, float("nan"), 1.0, 0.0])
    assert found.estimate == pytest.approx(2 / 3) and found.n == 3


def test_other_seeds_for_tuned_than_for_base_are_refused():
    with pytest.raises(ConfigError, match="identical seeds"):
        rate([1.0, 0.0], base_seeds=[1, 2], tuned_seeds=[1, 3])


def test_scores_in_place_of_outcomes_are_refused():
    with pytest.raises(ConfigError, match="wins"):
        rate([0.3, 1.0])


def test_without_ties_the_rate_is_of_the_decided_pairs_alone():
    outcomes = np.array([1.0, 1.0, 0.0, 0.5, 0.5, np.nan])
    options = {"groups": range(6), "generator": np.random.default_rng(0), "options": Bootstrap(resamples=100)}
    rate = decided_win_rate(outcomes, **options)
    assert rate.estimate == pytest.approx(2 / 3) and rate.n == 3
    assert decided_win_rate(np.array([0.5, 0.5]), **(options | {"groups": range(2)})) is None
