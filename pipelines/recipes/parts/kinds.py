"""What a list of models may hold: classes by the name of their `kind`; a new generator, juror or scorer is a name here."""

from __future__ import annotations

from collections.abc import Mapping

from pipelines.models.generators.diffusers import Diffusers
from pipelines.models.generators.generator import Generator
from pipelines.models.jurors.by_score import ScoreJuror
from pipelines.models.jurors.juror import Juror
from pipelines.models.jurors.vlm import VlmJuror
from pipelines.models.scorers.scorer import Scorer
from pipelines.recipes.parts import rosters

GENERATORS: Mapping[str, type[Generator]] = {"diffusers": Diffusers}
JURORS: Mapping[str, type[Juror]] = {"vlm": VlmJuror, "by_score": ScoreJuror}
SCORERS: Mapping[str, type[Scorer]] = {}


def generators(given: str, *, flag: str = "--roster") -> tuple[Generator, ...]:
    """The generators of a list; see `rosters.read`."""
    return rosters.read(given, kinds=GENERATORS, flag=flag)


def jurors(given: str, *, flag: str = "--jury") -> tuple[Juror, ...]:
    """The jurors of a list."""
    return rosters.read(given, kinds=JURORS, flag=flag, holds="model", nested={"scorer": SCORERS})


def scorers(given: str, *, flag: str = "--scorers") -> tuple[Scorer, ...]:
    """The scorers of a list."""
    return rosters.read(given, kinds=SCORERS, flag=flag, holds="model")
