"""The gate: rewards up and held-out down stops; anything else passes, with reasons."""

import math

import pytest

from infra.config import ConfigError
from pipelines.algorithms.metrics.gate import Gate, MeasuredChange, decide
from pipelines.algorithms.metrics.interval import Interval


def measure(name, estimate, *, trained_on=False, half=0.01):
    interval = Interval(estimate=estimate, low=estimate - half, high=estimate + half, n=100)
    return MeasuredChange(name=name, trained_on=trained_on, difference=interval)


def verdict(*measures, **options):
    return decide(measures, options=Gate(**options))


def test_rewards_up_and_held_out_down_fails_and_names_both():
    found = verdict(measure("jury", 0.2, trained_on=True), measure("strict", -0.05), measure("quality", 0.1))
    assert not found.passed
    assert any("jury" in reason for reason in found.reasons)
    assert any("strict" in reason and "falls" in reason for reason in found.reasons)
    assert not any("quality" in reason for reason in found.reasons)


def test_both_up_passes():
    assert verdict(measure("jury", 0.2, trained_on=True), measure("strict", 0.05)).passed


def test_both_down_is_no_reward_hacking_but_is_told():
    found = verdict(measure("jury", -0.2, trained_on=True), measure("strict", -0.05))
    assert found.passed
    assert any("strict" in reason and "falls" in reason for reason in found.reasons)


def test_a_fall_within_its_interval_counts_only_when_estimates_do():
    measures = (measure("jury", 0.2, trained_on=True), measure("strict", -0.005))
    assert verdict(*measures).passed
    assert not verdict(*measures, certainty="estimate").passed


def test_a_tolerated_fall_passes():
    measures = (measure("jury", 0.2, trained_on=True), measure("strict", -0.05))
    assert verdict(*measures, tolerance=0.1).passed


def test_what_could_not_be_measured_fails():
    found = verdict(measure("jury", 0.2, trained_on=True), measure("strict", math.nan))
    assert not found.passed and found.reasons == ("strict could not be measured",)


def test_a_gate_without_a_held_out_measure_is_refused():
    with pytest.raises(ConfigError, match="held-out"):
        verdict(measure("jury", 0.2, trained_on=True))
