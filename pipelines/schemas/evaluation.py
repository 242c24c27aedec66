"""Tables of evaluation and report."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """One scorer's number for one picture or clip in one dimension."""

    id: str
    sample: str  # id of a Picture or Clip
    scorer: str
    dimension: str
    value: float | None  # higher is better; None where it could not be scored: masked, never a constant
    convention: str  # scale of the value, in the scorer's words


@dataclass(frozen=True)
class EvaluationSummary:
    """One measure of one arm against the baseline, over one task or all, with a paired bootstrap interval.

    Both arms are measured on the same prompts with the same seeds. Numbers are None where nothing could be compared.
    """

    arm: str  # generator
    baseline: str  # generator it is compared with
    measure: str  # scorer, or jury
    dimension: str
    statistic: str  # mean | win_rate (a tie is half a win) | win_rate_decided (ties leave the count)
    task: str  # a task of the prompts, or overall
    value: float | None  # of the arm: its mean, or its win rate against the baseline
    baseline_value: float | None  # of the baseline: its mean, or 1 - win rate
    difference: float | None  # value - baseline_value; for win rates: rate - 0.5
    low: float | None  # 95 % interval of the difference, prompts resampled
    high: float | None
    n: int  # pairs of pictures compared
    trained_on: bool  # whether anything that judges here taught the arm's weights, by the DAG
    convention: str  # scale of the values


@dataclass(frozen=True)
class GateReason:
    """Why the gate passed or failed an arm: one row per measure that decided."""

    arm: str
    passed: bool
    reason: str  # a measure, its difference with interval, and what that says


@dataclass(frozen=True)
class Page:
    """One file of the report."""

    path: str  # relative to the artifact's weights folder
    bytes: int
