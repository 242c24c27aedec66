"""What stages take whatever made it: pictures or clips, preferences between them, a trained policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import pyarrow as pa

from infra.config import Config
from infra.dag.stage import Places, Stage
from pipelines.models.adapter import Adapter, Full, LoRA, Start
from pipelines.models.families.base import Family
from pipelines.models.jurors.juror import Juror
from pipelines.schemas.evaluation import Score
from pipelines.schemas.samples import Picture
from pipelines.schemas.votes import DimensionMargin, Preference, Vote


class Pictures(Stage):
    """Rendered or imported: rows are `Picture`s, or `Clip`s where `clips` says so."""

    row: ClassVar[type] = Picture
    clips: ClassVar[bool] = False

    @property
    def medium(self) -> str:
        """The column that holds the file."""
        return "video" if self.clips else "image"

    @property
    def makers(self) -> Mapping[str, Config]:
        """Configs of the generators by name, where this DAG renders them: what taught their weights can be read off it."""
        return {}


class Pairing(Stage):
    """Rows name two pictures that are compared: columns id, text, picture_a, picture_b."""

    def places(self, pairs: pa.Array) -> dict[str, str]:
        """Where these pairs stand in the files of the user ("pairs.parquet row 12"); {} for pairs made here."""
        del pairs
        return {}


class Scored(Stage):
    """Rows are `Score`s of pictures or clips."""

    row: ClassVar[type] = Score


class Votes(Stage):
    """Rows are `Vote`s."""

    row: ClassVar[type] = Vote

    @property
    def jurors(self) -> tuple[Juror, ...]:
        """Who votes."""
        raise NotImplementedError(f"{type(self).__name__} does not say who votes")


class Labels(Pairing):
    """Judged or imported: rows are `Preference`s; margins by dimension beside, where there are any."""

    row: ClassVar[type] = Preference
    tables: ClassVar[Mapping[str, type]] = {"dimensions": DimensionMargin}

    @property
    def shown(self) -> Pictures:
        """The pictures or clips that the preferences are about."""
        raise NotImplementedError(f"{type(self).__name__} does not say what its preferences are about")

    @property
    def has_probability(self) -> bool:
        """Whether a preference says how probable it is that it is right."""
        return False


class Trained(Stage):
    """Leaves a trained policy as its weights."""

    policy: Family
    "The generator to train."
    start: Trained | None = None
    "A previous tune: the policy starts there, and so does the reference."
    adapter: Adapter = LoRA()
    "What is trained: low-rank additions, or everything."


def merges(start: Trained | None, adapter: LoRA | Full) -> bool:
    """Whether a training of `adapter` begins with the LoRA that a previous tune left merged into the weights."""
    return start is not None and start.adapter.kind == "lora" and adapter.kind == "full"


def origin(policy: Family, start: Trained | None, places: Places) -> tuple[Family, Start | None]:
    """The pipeline a policy stands on, and what a previous tune adds to it.

    That is the generator, or the last of the previous tunes that trained everything: an adapter lies on what it began with.
    """
    if start is None:
        return policy.placed(places), None
    before: Trained | None = start
    while before is not None and before.adapter.kind == "lora":
        before = before.start
    family = policy.placed(places) if before is None else policy.at(places.weights(before))
    return family, Start(folder=places.weights(start).resolve(), adapter=start.adapter)
