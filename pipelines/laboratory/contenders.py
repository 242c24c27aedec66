"""What the laboratory compares: contenders with equal numbers of candidate settings, and claims about two of them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from infra.config import Config, ConfigError
from pipelines.algorithms.diffusion.flow import TimeSampler
from pipelines.algorithms.preference.methods import AnyMethod

BASE = "base"
"""The generator as it is, in a claim."""

Data = Literal["near", "roster", "trivial"]
"""Pairs of the policy and its likes; of the whole roster; of the first, each loser a picture of another caption."""

NoiseKind = Literal["flips", "conflict"]
"""Labels that are wrong at random; labels that are the word of a dimension drawn for the pair (light, colour, detail),
which disagrees with the jury's as dimensions do in ViPO's noisy data."""


class Phase(Config):
    """A part of a training run: full fine-tuning by one method."""

    method: AnyMethod
    learning_rate: float = Field(gt=0)
    """The highest."""
    share: float = Field(1.0, gt=0, le=1)
    """Of the run's steps."""


class Contender(Config):
    """A method on data, with the settings that it may choose from."""

    name: str = Field(min_length=1)
    title: str
    """What a table calls it. It is a column of the scores, so it is part of the identity."""
    data: Data = "near"
    length: int = Field(1, ge=1)
    """Its steps, in multiples of the laboratory's."""
    noises: tuple[float, ...]
    """Noise levels at which it is trained."""
    noise_kind: NoiseKind = "flips"
    """What a noise level is a share of: labels turned round, or labels that are the word of another dimension."""
    times: TimeSampler | None = None
    """How its noise levels of diffusion are drawn; None: as the laboratory's others."""
    candidates: tuple[tuple[Phase, ...], ...] = Field(min_length=1)
    """Phases in order, one tuple a candidate; the tuning captions choose one."""

    @model_validator(mode="after")
    def _sound(self) -> Contender:
        if self.name == BASE:
            raise ConfigError(f"no contender is called {BASE!r}: it is the generator as it is; choose another name")
        if bad := [noise for noise in self.noises if not 0 <= noise < 0.5]:
            raise ConfigError(f"contender {self.name}: noise {bad[0]} is refused; from 0.5 on labels say nothing true")
        for phases in self.candidates:
            if not phases or abs(sum(phase.share for phase in phases) - 1) > 1e-9:
                raise ConfigError(f"contender {self.name}: the shares of a candidate's phases must add up to 1")
        return self


class Claim(Config):
    """That one contender scores higher than another, or as high, at some noise levels."""

    name: str = Field(min_length=1, pattern=r"^[a-z0-9-]+$")
    statement: str
    """In words, with who says so."""
    better: str
    worse: str
    """A contender's name, or base."""
    noises: tuple[float, ...] = Field(min_length=1)
    within: float | None = Field(None, gt=0)
    """Claims that the two differ by less than this, in score, and not that one is better: an equivalence test."""


def check_budgets(contenders: tuple[Contender, ...]) -> int:
    """Candidates a contender; ConfigError where one may try more settings than another, or two share a name."""
    names = [one.name for one in contenders]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two contenders are called {name!r}; give each its own name")
    budgets = {one.name: len(one.candidates) for one in contenders}
    if not budgets:
        raise ConfigError("the laboratory needs a contender, got none; check --methods")
    first, *rest = budgets
    for name in rest:
        if budgets[name] != budgets[first]:
            raise ConfigError(
                f"contender {name} tries {budgets[name]} settings, {first} {budgets[first]}; a comparison is fair with "
                "equal budgets only"
            )
    return budgets[first]
