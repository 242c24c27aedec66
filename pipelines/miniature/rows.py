"""Tables that only the miniature world writes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainingStep:
    """A hundred steps of a training from nothing (recipe zoo)."""

    step: int  # the last of them, counted from 1
    loss: float  # their mean


@dataclass(frozen=True)
class ZooScore:
    """The exact checker's word on one shipped generator."""

    model: str
    guidance: float  # 1 is none
    task: str  # a task, or overall: the mean of the six
    strict: float  # share of pictures that show exactly what was asked
    pictures: int
