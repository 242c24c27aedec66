"""The hazard of the standard normal against an independent implementation, into the far tail."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, special

from pipelines.algorithms.rating.normal import TAIL, excess, hazard


@given(x=st.floats(-1e6, 30))
def test_the_hazard_is_that_of_scipy(x):
    assert hazard(x) == pytest.approx(math.sqrt(2 / math.pi) / special.erfcx(-x / math.sqrt(2)), rel=1e-11, abs=1e-300)


@given(x=st.floats(-1e8, 1e8))
def test_the_excess_is_positive_and_grows(x):
    assert excess(x) > 0
    assert excess(x + 1) > excess(x)


def test_the_two_forms_meet_at_the_switch():
    below, above = excess(TAIL), excess(float(np.nextafter(TAIL, 0)))
    assert below == pytest.approx(above, rel=1e-12)


@pytest.mark.parametrize("x", [-1e4, -1e8])
def test_the_excess_is_one_over_the_distance_in_the_far_tail(x):
    assert excess(x) == pytest.approx(-1 / x, rel=1e-7)


@pytest.mark.parametrize("z", [0.0, 1.0, 4.9, 5.1, 12.0, 40.0, 300.0])
def test_the_excess_is_the_mean_of_what_is_left_above_zero(z):
    mean, mass = (
        integrate.quad(lambda y, p=power: y**p * math.exp(-0.5 * y * y - z * y), 0, 40 / (1 + z), epsrel=1e-12)[0]
        for power in (1, 0)
    )
    assert excess(-z) == pytest.approx(mean / mass, rel=1e-9)
