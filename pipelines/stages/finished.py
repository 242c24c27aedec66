"""What a finished run left, as the beginning of another recipe: its samples, pairs and labels, named by their keys.

A node here computes nothing: it is the artifact with that key, so that what is made from it has the identity that it would
have in the run itself, whatever has happened since to the files of prompts and models that the run began with. Nothing is
copied, and latents that the run has encoded are taken over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from infra.config import ConfigError
from infra.dag.stage import Context, Inputs, Stage, TableStage
from infra.store.artifacts import Artifact, Store
from infra.store.runs import artifact_of, node_of, run_at
from pipelines.schemas.samples import Clip, Picture
from pipelines.schemas.votes import DimensionMargin, JurorStatistics, Pair, Preference
from pipelines.stages.sources import Labels, Pairing, Pictures

LABEL, PAIR = "label", "pair"


class FinishedStage(TableStage):
    """An artifact of the store that the recipe runs on."""

    elsewhere: ClassVar = True

    artifact: str
    """Its key."""

    @cached_property
    def key(self) -> str:
        """The key of the artifact, and not one of this description."""
        return self.artifact

    def run(self, context: Context) -> Iterator[Any]:
        """Raises ConfigError: what is not in the store is not computed here."""
        del context
        raise ConfigError(
            f"{self.name} {self.artifact} is not in this store; give --root the store of that run, or write its pairs into "
            "a folder with salon export, and give the folder"
        )

    def expected_rows(self, inputs: Inputs) -> int:
        """As many as there are."""
        return inputs.table(self, ["id"]).num_rows


class FinishedPictures(FinishedStage, Pictures):
    """Pictures that a run has rendered."""

    name: ClassVar = "render"
    row: ClassVar = Picture


class FinishedClips(FinishedStage, Pictures):
    """Clips that a run has rendered."""

    name: ClassVar = "render_clips"
    row: ClassVar = Clip
    clips: ClassVar = True


class FinishedPairs(FinishedStage, Pairing):
    """Pairs that a run has shown its jury."""

    name: ClassVar = PAIR
    row: ClassVar = Pair


class FinishedLabels(FinishedStage, Labels):
    """Preferences of a run's jury, margins by dimension beside."""

    name: ClassVar = LABEL
    row: ClassVar = Preference
    tables: ClassVar[Mapping[str, type]] = {"jurors": JurorStatistics, "dimensions": DimensionMargin}

    samples: FinishedPictures | FinishedClips = Field(exclude=True)
    calibrated: bool = Field(False, exclude=True)
    "Whether a preference says how probable it is that it is right."

    @property
    def shown(self) -> Pictures:
        """The pictures or clips that the preferences are about."""
        return self.samples

    @property
    def has_probability(self) -> bool:
        """As the run's own labels say."""
        return self.calibrated


SAMPLES: Mapping[str, type[FinishedPictures | FinishedClips]] = {one.name: one for one in (FinishedPictures, FinishedClips)}


def finished_pairs(path: Path) -> tuple[FinishedPairs, FinishedLabels, frozenset[str]]:
    """The pairs and labels of the run with this file, and the dimensions that its jury judged.

    Raises ConfigError for a run that has labelled nothing, and for artifacts that are gone, damaged or out of date.
    """
    store, run = run_at(path)
    try:
        labels = artifact_of(store, node_of(run, LABEL))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}; recipes that judge, such as align_image, have labels") from error
    pairs = _parent(store, labels, (PAIR,))
    samples = _parent(store, pairs, tuple(SAMPLES))
    told = labels.table(Preference, ["probability"])["probability"]
    shown = SAMPLES[samples.record.stage](artifact=samples.record.key)
    found = FinishedLabels(
        artifact=labels.record.key, samples=shown, calibrated=told.null_count < len(told), max_error_share=0.0
    )
    compared = FinishedPairs(artifact=pairs.record.key)
    for stage in (shown, compared, found):
        _require_current(store, stage, path)
    margins = labels.table(DimensionMargin, ["dimension"], name="dimensions")
    return compared, found, frozenset(margins["dimension"].to_pylist())


def _parent(store: Store, child: Artifact, stages: tuple[str, ...]) -> Artifact:
    """The artifact of one of these stages that another was made from."""
    for parent in child.record.parents.values():
        if parent.stage in stages:
            return artifact_of(store, {"stage": parent.stage, "key": parent.key})
    wanted = " or ".join(stages)
    raise ConfigError(
        f"{child.directory} was made from no {wanted}; give the run of a recipe that renders pairs and judges them"
    )


def _require_current(store: Store, stage: Stage, path: Path) -> None:
    """Raises ConfigError where an artifact is not whole, or one that it was made from has changed since."""
    found = store.inspect(stage)
    if not found.hit:
        problem = (
            f"{found.damaged[0]} is damaged" if found.damaged else f"{', '.join(found.stale) or 'it'} has changed since"
        )
        raise ConfigError(f"{path}: {stage.name} {stage.key}: {problem}; run the recipe of that run again first")
