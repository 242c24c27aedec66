"""Tables of evaluation and report."""

from __future__ import annotations

from dataclasses import dataclass

from infra.store.tables import Image


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
class Evaluation:
    """Base and tuned on one held-out caption with one seed."""

    id: str
    prompt_id: str
    text: str
    task: str
    sample: int
    seed: int
    base: Image
    tuned: Image
    base_strict: bool
    tuned_strict: bool
    base_partial: float  # in [0, 1]
    tuned_partial: float
    base_quality: float  # in [0, 1]
    tuned_quality: float
    jury: float  # 1: the jury prefers tuned; 0.5: tie; 0: base
    base_reward: float
    tuned_reward: float


@dataclass(frozen=True)
class EvaluationSummary:
    """One measure over one task (or all), with a paired bootstrap interval of the difference."""

    measure: str  # strict | partial | quality | reward | win_rate_jury | win_rate_reward
    task: str  # a task, or overall
    base: float
    tuned: float
    difference: float  # tuned - base; for win rates: rate - 0.5
    low: float
    high: float
    n: int  # pictures a model


@dataclass(frozen=True)
class GateReason:
    """Why the gate passed."""

    reason: str  # a measure, its difference with interval, and what that says


@dataclass(frozen=True)
class Page:
    """One file of the report."""

    path: str  # relative to the artifact's weights folder
    bytes: int
