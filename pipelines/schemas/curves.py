"""Training curves as long rows (step, metric, value): a metric that an objective adds is more rows and nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

STEP = "step"


@dataclass(frozen=True)
class Curve:
    """One metric of one optimiser step. A metric that was not measured at a step has no row of that step.

    Every training has loss (mean over the batch), gradient_norm (before clipping) and learning_rate. Preference tuning
    adds implicit_accuracy (share of pairs that the policy prefers the right way round, equals count half), winner_error
    and loser_error (mean squared errors of the policy's predictions), error_drift (policy's minus reference's error, mean
    of both members), drift (mean squared difference to the reference's predictions) and whatever its method reports; a
    reward model adds accuracy (share of pairs whose winner leads).

    Online training adds, at the first step of every round, reward (mean known score), masked_share (scores that are NaN),
    zero_advantage_share (states that are not learnt from), policy_shift (mean log-probability ratio to the reference),
    better_score, worse_score and order_flips of pairs, parity (largest difference of recomputed log-probabilities), seconds
    of rollout, scoring and update per rank, forwards and scores of all ranks, and held_out_reward and held_out_measure
    where they were measured; at every step clip_share and kl where the method has them.
    """

    step: int  # counted from 1
    metric: str
    value: float  # mean over the examples of the step that have the number; in the metric's own unit


def curve_rows(log: Iterable[Mapping[str, Any]]) -> Iterator[Curve]:
    """Rows of a trainer's log, which has one mapping per step; None and NaN were not measured and become no row."""
    for entry in log:
        for metric, value in entry.items():
            if metric != STEP and value is not None and not math.isnan(value):
                yield Curve(entry[STEP], metric, float(value))


def by_metric(rows: Iterable[Curve]) -> dict[str, list[Curve]]:
    """The rows of each metric in the order of the steps; metrics in the order in which they first appear."""
    found: dict[str, list[Curve]] = {}
    for row in rows:
        found.setdefault(row.metric, []).append(row)
    return {metric: sorted(many, key=lambda row: row.step) for metric, many in found.items()}


def last_step(rows: Iterable[Curve]) -> int:
    """Number of the last step; 0 without rows."""
    return max((row.step for row in rows), default=0)


def ends(rows: Sequence[Curve]) -> dict[str, tuple[float | None, float | None]]:
    """Mean of each metric over the first and over the last tenth of the steps; None where it was not measured there."""
    last = last_step(rows)
    tenth = max(1, last // 10)
    found: dict[str, tuple[float | None, float | None]] = {}
    for metric, many in by_metric(rows).items():
        first = [row.value for row in many if row.step <= tenth]
        latest = [row.value for row in many if row.step > last - tenth]
        found[metric] = (_mean(first), _mean(latest))
    return found


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
