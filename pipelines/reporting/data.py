"""All that a report shows, as rows of the schemas and a few counts: what `render_report` is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from infra.store.tables import Image, Video
from pipelines.schemas.curves import Curve
from pipelines.schemas.evaluation import EvaluationSummary, GateReason
from pipelines.schemas.training import RewardAccuracy
from pipelines.schemas.votes import JurorStatistics, Rating


@dataclass(frozen=True)
class Node:
    """One stage of the DAG, as the run left it."""

    node: str
    stage: str
    key: str
    state: str  # hit | computed | this page | not in this run
    seconds: float | None
    rows: int | None
    error_rows: int
    reused_rows: int
    parents: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)  # option by dotted path; parents left out


@dataclass(frozen=True)
class Duel:
    """Games of two generators; `left` sorts before `right` (or equals it)."""

    left: str
    right: str
    left_wins: int
    right_wins: int
    ties: int


@dataclass(frozen=True)
class LabelCounts:
    """What became of the pairs."""

    pairs: int = 0
    ties: int = 0
    unanimous: int = 0  # agreement = 1
    agreement: float | None = None  # mean over pairs, in [0, 1]
    unparsable_votes: int = 0


@dataclass(frozen=True)
class GalleryPicture:
    """What one arm made of a caption."""

    arm: str
    picture: str  # id, to ask DuckDB about
    image: Image | Video
    scores: Mapping[str, float | None]  # by measure and dimension, in the order of the evaluation
    preferred: str = ""  # the jury's word against the baseline: yes | no | tie; "" without one


@dataclass(frozen=True)
class GalleryEntry:
    """One held-out caption and sample number by every arm, the baseline first."""

    text: str
    task: str
    sample: int
    seed: int
    pictures: Sequence[GalleryPicture]


@dataclass(frozen=True)
class Gallery:
    """A fixed selection of captions, and from how many it was drawn."""

    entries: Sequence[GalleryEntry] = ()
    per_task: int = 0
    candidates: int = 0


@dataclass(frozen=True)
class ReportData:
    """Rows and counts of one run; every sequence may be empty."""

    nodes: Sequence[Node] = ()
    ratings: Sequence[Rating] = ()
    duels: Sequence[Duel] = ()
    gaps: Sequence[float] = ()
    jurors: Sequence[JurorStatistics] = ()
    labels: LabelCounts = LabelCounts()
    reward_accuracy: Sequence[RewardAccuracy] = ()
    reward_curve: Sequence[Curve] = ()
    tune_curve: Sequence[Curve] = ()
    summary: Sequence[EvaluationSummary] = ()
    gallery: Gallery = Gallery()
    gate: Sequence[GateReason] = ()
    libraries: Mapping[str, str] = field(default_factory=dict)
    commit: str = ""
    target: str = ""  # key of the report itself
