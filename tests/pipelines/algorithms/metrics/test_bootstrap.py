"""Bootstrap intervals: their width against the closed form, pairing, groups, determinism."""

import numpy as np
import pytest

from infra.config import ConfigError
from pipelines.algorithms.metrics.bootstrap import Bootstrap, mean_interval, paired_difference

OPTIONS = Bootstrap(resamples=2000)


def interval(values, *, groups=None, seed=0, options=OPTIONS):
    values = np.asarray(values, dtype=float)
    groups = list(range(len(values))) if groups is None else groups
    return mean_interval(values, groups=groups, generator=np.random.default_rng(seed), options=options)


def test_the_interval_is_that_of_the_normal_law_for_many_values():
    values = np.random.default_rng(1).normal(3.0, 2.0, 1000)
    found = interval(values)
    half = 1.96 * values.std() / np.sqrt(1000)
    assert found.estimate == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * half, rel=0.06)
    assert found.low < found.estimate < found.high


def test_pairing_takes_out_what_base_and_tuned_share():
    generator = np.random.default_rng(2)
    difficulty = generator.normal(0, 10, 400)
    base, tuned = difficulty + generator.normal(0, 0.1, 400), difficulty + 0.2 + generator.normal(0, 0.1, 400)
    found = paired_difference(
        base, tuned=tuned, groups=list(range(400)), generator=np.random.default_rng(0), options=OPTIONS
    )
    assert 0.15 < found.low < 0.2 < found.high < 0.25


def test_repeating_the_samples_of_a_prompt_adds_no_certainty():
    values = np.random.default_rng(3).normal(size=200)
    once = interval(values)
    repeated = interval(np.repeat(values, 4), groups=np.repeat(np.arange(200), 4).tolist())
    naive = interval(np.repeat(values, 4))
    assert repeated.high - repeated.low == pytest.approx(once.high - once.low, rel=0.08)
    assert naive.high - naive.low < 0.6 * (once.high - once.low)


def test_constant_values_have_an_interval_of_no_width():
    found = interval([0.25] * 10)
    assert (found.low, found.estimate, found.high, found.n) == (0.25, 0.25, 0.25, 10)


def test_the_same_generator_gives_the_same_interval():
    values = np.random.default_rng(4).normal(size=50)
    assert interval(values, seed=5) == interval(values, seed=5)


def test_the_interval_does_not_depend_on_how_many_draws_are_held_at_once(monkeypatch):
    values = np.random.default_rng(6).normal(size=50)
    whole = interval(values)
    monkeypatch.setattr("pipelines.algorithms.metrics.bootstrap._CHUNK", 500)
    assert interval(values) == whole


@pytest.mark.parametrize("values", [[], [1.0, float("nan")]])
def test_nothing_and_failed_measures_are_refused(values):
    with pytest.raises(ConfigError):
        interval(values)
