"""The pairs that an offline tuning learns from, out of files or out of a run, and the nodes that make examples of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from infra.config import ConfigError
from infra.dag.stage import Resources
from infra.store.files import Folder
from pipelines.algorithms.preference.scalarisation import Scalarisation
from pipelines.exchange.formats import FormatName, renames
from pipelines.recipes.parts.checks import require_dimensions, require_known, require_scores, require_subsets
from pipelines.recipes.parts.model import Trainee
from pipelines.recipes.parts.setup import ENCODED_ROWS, Setup
from pipelines.stages.arena import Arena
from pipelines.stages.encode import Encode, Encoders
from pipelines.stages.examples import Examples
from pipelines.stages.finished import finished_pairs
from pipelines.stages.imported import ImportedClips, ImportedLabels, ImportedPictures, ImportedScores, PairFiles
from pipelines.stages.jury_scores import JuryScores
from pipelines.stages.sources import Labels, Pairing, Scored
from pipelines.stages.subset import PairsOfSubsets
from pipelines.training.buckets import Buckets
from pipelines.training.previews import Previews


@dataclass(frozen=True)
class Learnt:
    """Labels, the pairs that are encoded for them, and scores of single samples where they are asked for."""

    labels: Labels
    compared: Pairing
    scores: Scored | None


@dataclass(frozen=True)
class Data:
    """Pairs, and the shapes they are brought to."""

    pairs: str
    """A folder, or the file of a run; "": not at hand, a plan counts `expected` pairs."""
    expected: int
    area: int
    """Pixels of a picture or frame."""
    own: bool = False
    """Keep every pair's own shape, as far as the model's multiple allows."""
    square: bool = False
    """Crop pictures to squares."""
    flips: bool = False
    """Encode both orientations and train on either."""
    max_error_share: float = 0.05
    clips: bool = False
    frames: tuple[int, ...] = (1,)
    alignment: Scalarisation | None = None
    arena: bool = False
    format: FormatName = "salon"
    """How the pairs are kept."""
    renamed: tuple[str, ...] = ()
    """`old=new`: the files' columns by the format's names."""
    subsets: tuple[str, ...] = ()
    """Parts of the data set to learn from; empty: all."""
    without: tuple[str, ...] = ()
    """Parts of the data set to leave out."""
    named: tuple[str, ...] = ()
    """Parts that the user named: a pair must be of each."""
    scores: Literal["pairs", "labels"] | None = None
    """Where each sample's own score comes from: columns of the files, or a fit to the labels' log-odds; None: nowhere."""
    use_of_scores: str = ""
    """The flag that asks for scores."""
    instead_of_scores: str = ""
    """What to do where the pairs have none."""

    def nodes(self, model: Trainee, previews: Previews, *, setup: Setup) -> Examples:
        """The labels and pictures, or those of a run -> encode -> examples."""
        learnt = self._of_run(Path(self.pairs)) if Path(self.pairs).is_file() else self._of_files()
        # Clips take the finest shapes that the model has; pictures come in many shapes, and 64 px keep their groups few.
        family, side = model.family, math.isqrt(self.area)
        multiple = family.size_multiple if self.clips else max(family.size_multiple, min(64, side))
        buckets = Buckets(
            area=self.area,
            multiple=multiple,
            ratio=1.0 if self.square else 2.0,
            own=self.own,
            frames=self.frames,
            rate=family.frame_rate if self.clips else None,
        )
        encoded = Encode(
            pairs=learnt.compared,
            pictures=learnt.labels.shown,
            encoders=Encoders(family=model.family),
            buckets=buckets,
            flips=self.flips,
            texts=previews.texts,
            dtype=setup.dtype,
            shard_rows=ENCODED_ROWS,
            max_error_share=self.max_error_share,
            resources=Resources(workers=setup.encode_workers, gpus=setup.encode_gpus),
        )
        arena = Arena(labels=learnt.labels) if self.arena else None
        options: dict[str, Any] = {"alignment": self.alignment, "max_error_share": self.max_error_share}
        return Examples(labels=learnt.labels, encoded=encoded, arena=arena, scores=learnt.scores, **options)

    def _of_files(self) -> Learnt:
        """import -> import_labels, and a subset of them where one is chosen."""
        folder = Folder(path=self.pairs) if self.pairs else None
        renamed = renames(self.renamed, format=self.format, flag="--pairs-map")
        source = PairFiles(folder=folder, format=self.format, renamed=renamed, expected=self.expected)
        require_subsets(source, self.named)
        if self.scores == "pairs":
            require_scores(source, self.alignment, use=self.use_of_scores, instead=self.instead_of_scores)
        else:
            require_dimensions(source, self.alignment)
        pictures = ImportedClips(source=source) if self.clips else ImportedPictures(source=source)
        imported = ImportedLabels(pictures=pictures)
        chosen = bool(self.subsets or self.without)
        labels = PairsOfSubsets(labels=imported, only=self.subsets, without=self.without) if chosen else imported
        scores = {"pairs": ImportedScores(pictures=pictures), "labels": JuryScores(labels=labels), None: None}[self.scores]
        return Learnt(labels, labels, scores)

    def _of_run(self, path: Path) -> Learnt:
        """What a run has left; raises ConfigError where it is not what these flags ask for."""
        for flag, given in self._of_files_only().items():
            if given:
                raise ConfigError(
                    f"{flag} is for a folder of pairs, and --pairs {path} is the file of a run; leave one out"
                )
        if self.scores == "pairs":
            raise ConfigError(
                f"--pairs {path}: a run has no scores of single samples, which {self.use_of_scores} needs; "
                f"{self.instead_of_scores}"
            )
        compared, labels, judged = finished_pairs(path)
        if labels.shown.clips != self.clips:
            made, wanted = ("clips", "pictures") if labels.shown.clips else ("pictures", "clips")
            raise ConfigError(f"--pairs {path}: this run made {made}, and this recipe learns from {wanted}")
        if self.alignment is not None:
            require_known(self.alignment, judged, where=str(path))
        return Learnt(labels, compared, JuryScores(labels=labels) if self.scores == "labels" else None)

    def _of_files_only(self) -> Mapping[str, bool]:
        """Flags that say how a folder of pairs is read, and whether they were given."""
        asked_out = set(self.named) - set(self.subsets)
        flags = {"--pairs-format": self.format != "salon", "--pairs-map": bool(self.renamed)}
        return flags | {"--subset": bool(self.subsets), "--exclude-subset": bool(asked_out)}
