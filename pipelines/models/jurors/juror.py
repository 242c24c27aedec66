"""The interface of a juror: a prompt and two pictures in, an opinion for each dimension out.

A juror is a frozen config, so that it has an identity, with one method that opens it on a device. To add one, write a
subclass of `Juror` in a file of its own and put it into the jury of stage `judge`:

>>> class Larger(Juror):
...     name: str = "larger"
...
...     @property
...     def dimensions(self) -> tuple[str, ...]:
...         return ("overall",)
...
...     def open(self, device: str, places: Places) -> OpenJuror:
...         return OpenLarger()
>>> class OpenLarger:
...     def judge(self, cases):
...         leads = [float(len(case.first) - len(case.second)) for case in cases]  # bytes of the files
...         choices = [decided(lead, tie_within=0.0) for lead in leads]
...         return [(Opinion("overall", choice, None, None, raw=choice),) for choice in choices]
>>> from pipelines.algorithms.prompting.opinion import decided
>>> [(opinion,)] = Larger().open("cpu", places=None).judge([Case("a red circle", first=b"small", second=b"larger")])
>>> opinion.choice
'second'
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from pydantic import Field

from actors.serving.engine import Picture
from infra.config import Config
from infra.dag.stage import Places
from pipelines.algorithms.prompting.opinion import Opinion


@dataclass(frozen=True)
class Case:
    """What is put before a juror: never which generator made a picture, nor what a checker would ask for."""

    prompt: str
    """The text under which the pictures are judged."""
    first: Picture
    """The picture or clip shown first."""
    second: Picture | None
    """The one shown second; None: the first is graded alone."""


@dataclass(frozen=True)
class RankingCase:
    """Several pictures of one prompt, put before a juror that ranks."""

    prompt: str
    """The text under which the pictures are judged."""
    pictures: tuple[Picture, ...]
    """2 to 8 pictures or clips, in the order shown."""


@dataclass(frozen=True)
class RankingOpinion:
    """One juror's ranking of the pictures of a case."""

    ranks: tuple[int, ...] | None
    """Rank of each picture in the order shown: 1 is best, equal ranks are ties. None where unparsable."""
    raw: str
    """The answer's text, untouched."""


class OpenJuror(Protocol):
    """A juror with its model on a device."""

    def judge(self, cases: Sequence[Case]) -> list[tuple[Opinion, ...] | Exception]:
        """For each case one opinion per dimension, in the order of the juror's dimensions.

        An exception in the place of a case that could not be judged quarantines its rows alone. What is said of a case
        depends on that case alone, never on its batch.
        """
        ...


@runtime_checkable
class OpenRankingJuror(OpenJuror, Protocol):
    """A juror that also ranks several pictures in one question."""

    def rank(self, cases: Sequence[RankingCase]) -> list[RankingOpinion | Exception]:
        """For each case one ranking; an exception in the place of a case that could not be ranked."""
        ...


class Juror(Config, ABC):
    """One member of a jury."""

    name: str = Field(min_length=1)
    """Unique within a jury; it stands in every vote."""

    @property
    @abstractmethod
    def dimensions(self) -> tuple[str, ...]:
        """Names of what is judged; each becomes a vote. "overall" where there is one question about everything."""

    @property
    def ranks(self) -> bool:
        """Whether what `open` returns is an `OpenRankingJuror`."""
        return False

    @abstractmethod
    def open(self, device: str, places: Places) -> OpenJuror:
        """Loads what is needed; device: "cpu" or "cuda"; places: the weights of stages."""
