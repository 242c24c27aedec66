"""Tables of prompts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "evaluation"]
"""Disjoint sets of texts: nothing is learnt from prompts of the second."""


@dataclass(frozen=True)
class Prompt:
    """A caption and what it asks for."""

    id: str
    text: str
    task: str  # GenEval's six: single, two, counting, colours, position, attribution
    split: str  # train | evaluation; disjoint sets of texts
    expectation: str  # canonical JSON of the scene asked for; jurors never see it
    source: str = ""  # where it was found: a file and a line or row, or what wrote it
    parent: str | None = None  # id of the prompt that it was made from
