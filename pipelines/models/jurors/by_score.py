"""Any scorer as a juror: of two pictures the one with the higher score is better, within a threshold they are equal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from actors.media import encode_png, is_clip
from actors.serving.engine import Picture
from infra.config import ConfigError
from infra.dag.stage import Places
from pipelines.algorithms.prompting.opinion import Opinion, decided, rounded, unparsable
from pipelines.models.jurors.juror import Case, Juror, OpenJuror
from pipelines.models.scorers.scorer import OpenScorer, Sample, Scorer


class ScoreJuror(Juror):
    """A scorer that compares: its opinions are differences of scores."""

    scorer: Scorer
    """What scores the two pictures; it must not need an expectation, which no juror is shown."""
    tie_within: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Largest difference of two scores, on the scorer's own scale, that is a tie."""

    @model_validator(mode="after")
    def _of_one_sample(self) -> ScoreJuror:
        if self.scorer.of_group:
            raise ConfigError(f"juror {self.name}: {self.scorer.name} measures a group of samples; take a score of one")
        return self

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Those of the scorer."""
        return self.scorer.dimensions

    def open(self, device: str, places: Places) -> OpenJuror:
        return OpenScoreJuror(self.scorer.open(device, places), dimensions=self.dimensions, tie_within=self.tie_within)


class OpenScoreJuror:
    """The scorer in memory."""

    def __init__(self, scorer: OpenScorer, *, dimensions: Sequence[str], tie_within: float) -> None:
        self.scorer = scorer
        self.dimensions = dimensions
        self.tie_within = tie_within

    def judge(self, cases: Sequence[Case]) -> list[tuple[Opinion, ...] | Exception]:
        """Scores every picture under its prompt once, in one call, whatever the number of its comparisons."""
        samples = {
            (case.prompt, file): Sample(file, _medium(file), case.prompt)
            for case in cases
            for file in (_encoded(shown) for shown in (case.first, case.second) if shown is not None)
        }
        scores = dict(zip(samples, self.scorer.score(list(samples.values())), strict=True))
        return [self._opinions(case, scores) for case in cases]

    def _opinions(self, case: Case, scores: Mapping[tuple[str, bytes], np.ndarray]) -> tuple[Opinion, ...]:
        """One per dimension; unparsable where a picture could not be scored."""
        first = scores[case.prompt, _encoded(case.first)]
        if case.second is None:
            return tuple(self._grade(name, float(value)) for name, value in zip(self.dimensions, first, strict=True))
        second = scores[case.prompt, _encoded(case.second)]
        return tuple(
            self._opinion(name, float(one), float(other))
            for name, one, other in zip(self.dimensions, first, second, strict=True)
        )

    def _opinion(self, dimension: str, first: float, second: float) -> Opinion:
        raw = f"{first:.6g} {second:.6g}"
        difference = first - second
        if not math.isfinite(difference):
            return unparsable(raw, dimension=dimension)
        return Opinion(dimension, decided(difference, tie_within=self.tie_within), rounded(difference), None, raw)

    @staticmethod
    def _grade(dimension: str, value: float) -> Opinion:
        known = rounded(value) if math.isfinite(value) else None
        return Opinion(dimension, None, known, None, f"{value:.6g}")


def _encoded(shown: Picture) -> bytes:
    """The file of a picture or clip."""
    return shown if isinstance(shown, bytes) else encode_png(shown).bytes


def _medium(data: bytes) -> Literal["image", "video"]:
    return "video" if is_clip(data) else "image"
