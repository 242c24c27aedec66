"""What is foretold of a stage: by the records of earlier runs, or by what the stage itself knows of others' runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GpuTime:
    """GPU time of a stage where no run of this store tells how long it takes."""

    seconds: float
    """Of one GPU, for what is to be done."""
    basis: str
    """Where it comes from, for `plan`: "published rates: …" or "reckoned, not measured: …"."""
    complete: bool = True
    """Whether it covers all of the work; otherwise it takes at least so long."""


@dataclass(frozen=True)
class Foretold:
    """What is left of a stage, as far as earlier runs or others' measurements tell."""

    seconds: float
    """Of the stage's workers together at work."""
    gpu_hours: float
    bytes: int | None
    """Disk; None where no earlier run tells."""
    basis: str = ""
    """By what it is foretold, where not by earlier runs of this store."""
    complete: bool = True
    """Whether all of the work is counted; otherwise it takes at least so long."""
