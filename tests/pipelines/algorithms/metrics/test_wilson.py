"""The Wilson interval against a published example and its laws."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from infra.config import ConfigError
from pipelines.algorithms.metrics.wilson import wilson


@given(n=st.integers(1, 500), share=st.floats(0, 1), level=st.sampled_from([0.8, 0.95, 0.99]))
def test_the_interval_is_that_of_scipy(n, share, level):
    successes = round(share * n)
    found = wilson(successes, n=n, level=level)
    expected = binomtest(successes, n).proportion_ci(confidence_level=level, method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


@given(n=st.integers(1, 300), share=st.floats(0, 1))
def test_failures_are_the_mirror_of_successes_and_the_interval_holds_the_share(n, share):
    successes = round(share * n)
    there, back = wilson(successes, n=n), wilson(n - successes, n=n)
    assert there.low == pytest.approx(1 - back.high)
    assert 0 <= there.low <= there.estimate <= there.high <= 1


def test_nothing_observed_says_nothing():
    found = wilson(0, n=0)
    assert math.isnan(found.estimate) and (found.low, found.high) == (0.0, 1.0)


def test_more_successes_than_trials_are_refused():
    with pytest.raises(ConfigError, match="between 0 and n"):
        wilson(4, n=3)
