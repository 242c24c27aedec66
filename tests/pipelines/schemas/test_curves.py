"""Long curves: one row per step and metric that was measured."""

import math

import pytest

from pipelines.schemas.curves import Curve, by_metric, curve_rows, ends, last_step

LOG = [{"step": k + 1, "loss": float(20 - k), "odd": 1.0 if k % 2 else None, "broken": math.nan} for k in range(20)]


def test_a_metric_that_was_not_measured_has_no_row():
    rows = list(curve_rows(LOG))
    assert rows[0] == Curve(1, "loss", 20.0)
    assert [row.step for row in rows if row.metric == "odd"] == list(range(2, 21, 2))
    assert {row.metric for row in rows} == {"loss", "odd"}


def test_an_infinite_value_was_measured():
    assert list(curve_rows([{"step": 1, "loss": math.inf}])) == [Curve(1, "loss", math.inf)]


def test_metrics_come_in_the_order_of_the_log_and_their_rows_in_the_order_of_the_steps():
    rows = list(curve_rows(LOG))
    many = by_metric(rows[::-1])
    assert [row.step for row in many["loss"]] == list(range(1, 21)) and list(by_metric(rows)) == ["loss", "odd"]
    assert last_step(rows) == 20 and last_step([]) == 0


def test_the_ends_are_means_over_the_first_and_last_tenth_of_the_steps():
    found = ends(list(curve_rows([*LOG, {"step": 21, "late": 3.0}])))
    assert found["loss"] == (pytest.approx(19.5), pytest.approx(1.0)) and found["late"] == (None, 3.0)
