"""What a list of models may hold: classes by the name of their `kind`; a new generator, juror or scorer is a name here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra.config import Config
from pipelines.models.generators.diffusers import Diffusers
from pipelines.models.generators.generator import Generator
from pipelines.models.generators.served import Served
from pipelines.models.jurors.by_score import ScoreJuror
from pipelines.models.jurors.juror import Juror
from pipelines.models.jurors.served import ServedJuror
from pipelines.models.jurors.vlm import VlmJuror
from pipelines.models.jurors.wording import questionnaire_named, read_questionnaire
from pipelines.models.scorers.aesthetic import Aesthetic
from pipelines.models.scorers.clip_score import ClipScore
from pipelines.models.scorers.diversity import Diversity
from pipelines.models.scorers.hps import HPSv2
from pipelines.models.scorers.image_reward import ImageReward
from pipelines.models.scorers.ocr import Ocr
from pipelines.models.scorers.ocr_model import OcrModel
from pipelines.models.scorers.pickscore import PickScore
from pipelines.models.scorers.scorer import Scorer
from pipelines.models.scorers.soft_alignment import SoftTIFA, VQAScore, YesShare
from pipelines.recipes.parts import rosters

GENERATORS: Mapping[str, type[Generator]] = {"diffusers": Diffusers, "served": Served}
JURORS: Mapping[str, type[Juror]] = {"vlm": VlmJuror, "by_score": ScoreJuror, "served": ServedJuror}
SCORERS: Mapping[str, type[Scorer]] = {
    "clip": ClipScore,
    "pickscore": PickScore,
    "hpsv2": HPSv2,
    "aesthetic": Aesthetic,
    "imagereward": ImageReward,
    "vqascore": VQAScore,
    "yes_share": YesShare,
    "soft_tifa": SoftTIFA,
    "ocr": Ocr,
    "ocr_model": OcrModel,
    "diversity": Diversity,
}


def generators(given: str, *, flag: str = "--roster") -> tuple[Generator, ...]:
    """The generators of a list; see `rosters.read`."""
    return rosters.read(given, kinds=GENERATORS, flag=flag)


def jurors(given: str, *, flag: str = "--jury") -> tuple[Juror, ...]:
    """The jurors of a list; a questionnaire may be the name of a shipped wording, or a TOML file beside the list."""
    options: dict[str, Any] = {"nested": {"scorer": SCORERS}, "named": {"questionnaire": _questionnaire}}
    return rosters.read(given, kinds=JURORS, flag=flag, holds="model", **options)


def _questionnaire(given: str, folder: Path) -> Config:
    path = folder / given
    return read_questionnaire(path) if path.is_file() else questionnaire_named(given)


def scorers(given: str, *, flag: str = "--scorers") -> tuple[Scorer, ...]:
    """The scorers of a list."""
    return rosters.read(given, kinds=SCORERS, flag=flag, holds="model")
