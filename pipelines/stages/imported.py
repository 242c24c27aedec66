"""Stages `import` and `import_labels`: pairs in the field's formats enter where rendered and judged ones do.

A pair that cannot be used for what its row says (a label outside its set, a file that is not there or does not read, an id
that stands twice) is a quarantined row of `import_labels`; a picture that does not decode is one of `import`, and so is
its pair's label. Every message begins with the file and the line (from 1) or the row (from 0).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from actors.media import measures
from infra.config import Config, ConfigError
from infra.dag.stage import Context, Inputs, Places, RowStage, RunInputs, TableStage, Unforeseeable, Worker
from infra.identity import group_id, row_id, seed_of
from infra.store.files import Folder
from infra.store.tables import Image, Video
from pipelines.exchange.folder import listing_of, read_pairs
from pipelines.exchange.formats import FormatName
from pipelines.exchange.media import MediaReader, Place
from pipelines.schemas.evaluation import Score
from pipelines.schemas.samples import Clip
from pipelines.schemas.votes import DimensionMargin, PairSubset, Preference
from pipelines.stages.sources import Labels, Pictures, Scored

SIDES = ("a", "b")
SCORER, SCALE = "pairs", "as the files of pairs give it"


class PairFiles(Config):
    """A folder of pairs in some format; its identity is the content of its files."""

    folder: Folder | None = None
    """None: not at hand yet; a plan then counts `expected` pairs, a run refuses."""
    format: FormatName = "salon"
    """How the pairs are kept: `pipelines.exchange` has a file each."""
    renamed: dict[str, str] = Field(default_factory=dict)
    """What the format calls a column, by the name the files give it."""
    expected: int = Field(0, ge=0, exclude=True)
    """Pairs to plan with where there is no folder: the size of the data set a recipe is about."""

    def identity(self) -> dict[str, Any]:
        """Content of every file, and how it is read; raises ConfigError for a folder that is not there."""
        files = None
        if self.folder is not None:
            files = listing_of(self.local).digest
        return {"pairs": files, "format": self.format, "renamed": self.renamed}

    @property
    def local(self) -> Path:
        """The folder; raises Unforeseeable without one, ConfigError where it is not there."""
        if self.folder is None:
            raise Unforeseeable("there are no pairs; give a folder of them with --pairs")
        if not self.folder.local.is_dir():
            raise ConfigError(f"{self.folder.path}: no such folder; give a folder of pairs in format {self.format}")
        return self.folder.local

    def batches(self) -> Iterator[pa.RecordBatch]:
        """A row a pair, without pictures (`pipelines.exchange.folder.SCHEMA`), as a stream."""
        return read_pairs(self.local, format=self.format, renamed=self.renamed)


def subset_name(name: str) -> str:
    """A subset's name as it is compared: "Text_Rendering" is "text rendering"."""
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def picture_id(pair_id: str, side: str) -> str:
    """Id of one of a pair's two pictures; it lies beside the other's."""
    return row_id(pair_id, "picture", pair_id, side)


def named(table: pa.Table | pa.RecordBatch, side: str) -> pa.Array:
    """Ids of the pictures of one side."""
    return pa.array([picture_id(name, side) for name in table["pair_id"].to_pylist()], pa.string())


def prompt_ids(table: pa.Table | pa.RecordBatch) -> pa.Array:
    """Ids of the prompts."""
    return pa.array([group_id(text or "") for text in table["prompt"].to_pylist()], pa.string())


class Importer:
    """The worker: reads pictures where they lie, checks that they decode."""

    def __init__(self, row: type, *, medium: str, folder: Path) -> None:
        self.row, self.medium, self.folder = row, medium, folder

    def open(self, device: str, places: Places) -> None:
        """Cells lie in the order of the files and their rows, which the reader follows."""
        self.reader = MediaReader(self.folder)

    def run(self, cells: pa.Table) -> list[Any]:
        """One row a cell, in order."""
        given = cells.to_pylist()
        found = self.reader.fetch([Place(*(cell[name] for name in ("file", "row", "column", "path"))) for cell in given])
        return [self._picture(cell, data) for cell, data in zip(given, found, strict=True)]

    def _picture(self, cell: dict[str, Any], data: bytes | Exception) -> Any:
        what = f"{cell['file']} {cell['place']}".strip() + f": {cell['column'] or cell['path']}"
        if isinstance(data, Exception):
            raise ValueError(f"{what} cannot be read: {data}") from None
        try:
            found = measures(data, clip=self.medium == "video")
        except Exception as error:
            raise ValueError(f"{what} does not decode: {error}") from None
        kept = {name: cell[name] for name in ("id", "prompt_id", "text", "generator", "sample", "seed")}
        file = Video(bytes=data) if self.medium == "video" else Image(bytes=data)
        size: dict[str, Any] = {"height": found.height, "width": found.width}
        size |= {"frames": found.frames, "fps": found.fps} if self.medium == "video" else {}
        return self.row(**kept, **size, **{self.medium: file})


class ImportedPictures(RowStage, Pictures):
    """Files of pairs in; their pictures out, two a pair."""

    name: ClassVar = "import"
    version: ClassVar = 3
    in_cells: ClassVar = ("source",)  # an id is of the content of the files, the row's place in them and how it was read

    source: PairFiles
    max_error_share: float = Field(1.0, ge=0, le=1, exclude=True)
    "What is broken is left out and said; the rest is used."

    def cells(self, inputs: Inputs) -> pa.Table:
        """The columns of a picture but the picture, and where to read it; none for a row that cannot be used."""
        del inputs
        pieces = [self._cells(batch, side) for batch in self.source.batches() for side in SIDES]
        return pa.concat_tables(pieces)

    @staticmethod
    def _cells(batch: pa.RecordBatch, side: str) -> pa.Table:
        batch = batch.filter(pc.is_null(batch["error"]))
        seeds = [seed_of(name, side) for name in batch["pair_id"].to_pylist()]
        return pa.table(
            {
                "id": named(batch, side),
                "prompt_id": prompt_ids(batch),
                "text": batch["prompt"],
                "generator": batch[f"generator_{side}"],
                "sample": pa.array([SIDES.index(side)] * len(batch), pa.int64()),
                "seed": pa.array(seeds, pa.int64()),
                **{name: batch[name] for name in ("file", "place", "row")},
                **{name: batch[f"{name}_{side}"] for name in ("column", "path")},
            }
        )

    def worker(self, inputs: RunInputs) -> Worker:
        """Reads and checks; no model."""
        del inputs
        return Importer(self.row, medium=self.medium, folder=self.source.local.resolve())

    def expected_rows(self, inputs: Inputs) -> int:
        """Two a pair."""
        del inputs
        return 2 * self.source.expected


class ImportedClips(ImportedPictures):
    """Files of pairs in; their clips out, two a pair."""

    name: ClassVar = "import_clips"
    row: ClassVar = Clip
    clips: ClassVar = True


class ImportedLabels(TableStage, Labels):
    """Files of pairs in; their preferences out, margins by dimension and subsets beside."""

    name: ClassVar = "import_labels"
    version: ClassVar = 4
    tables: ClassVar[Mapping[str, type]] = {"dimensions": DimensionMargin, "subsets": PairSubset}
    cheap: ClassVar = True

    pictures: ImportedPictures
    max_error_share: float = Field(1.0, ge=0, le=1, exclude=True)
    "What is broken is left out and said; the rest is used."

    @property
    def shown(self) -> Pictures:
        """The pictures or clips that the imported labels are about."""
        return self.pictures

    def run(self, context: Context) -> Iterator[Preference]:
        """A row for each pair that can be used, by id."""
        there = context.table(self.pictures, ["id"])["id"].combine_chunks()
        table = pa.concat_tables([self._labels(batch, there) for batch in self.pictures.source.batches()]).sort_by("id")
        kept: list[str] = []
        for batch in table.drop_columns("subset").to_batches(max_chunksize=10_000):
            for row in batch.to_pylist():
                place = f"{row.pop('file')} {row.pop('place')}".strip()
                if error := row.pop("error"):
                    context.quarantine(row["id"], f"{place}: {error}")
                    continue
                kept.append(row["id"])
                yield Preference(**row, votes_a=0, votes_b=0, votes_tie=0, votes_unparsable=0)
        context.emit("dimensions", self._margins(pa.array(kept, pa.string())))
        part = table.filter(pc.and_(pc.is_null(table["error"]), pc.is_valid(table["subset"]))).select(["id", "subset"])
        context.emit("subsets", (PairSubset(*row.values()) for batch in part.to_batches() for row in batch.to_pylist()))

    @staticmethod
    def _labels(batch: pa.RecordBatch, there: pa.Array) -> pa.Table:
        """The label, where it stands, and why it cannot be used."""
        sides = {f"picture_{side}": named(batch, side) for side in SIDES}
        error = batch["error"]
        for side in SIDES:
            broken = pc.invert(pc.is_in(sides[f"picture_{side}"], there))
            reason = f"its picture {side} was not imported; the errors of the pictures say why"
            error = pc.if_else(pc.and_(pc.is_null(error), broken), reason, error)
        plain = ("choice", "agreement", "score", "generator_a", "generator_b", "file", "place", "subset")
        return pa.table(
            {"id": batch["pair_id"], "prompt_id": prompt_ids(batch), "text": batch["prompt"], **sides, "error": error}
            | {name: batch[name] for name in plain}
        )

    def places(self, pairs: pa.Array) -> dict[str, str]:
        """File and line or row of each of these pairs."""
        found: dict[str, str] = {}
        for batch in self.pictures.source.batches() if self.pictures.source.folder else ():
            chosen = batch.filter(pc.is_in(batch["pair_id"], pairs)).select(["pair_id", "file", "place"])
            found |= {row["pair_id"]: f"{row['file']} {row['place']}".strip() for row in chosen.to_pylist()}
        return found

    def _margins(self, kept: pa.Array) -> Iterator[DimensionMargin]:
        for batch in self.pictures.source.batches():
            chosen = pc.and_(pc.is_valid(batch["margins"]), pc.is_in(batch["pair_id"], kept))
            for pair in batch.filter(chosen).select(["pair_id", "margins"]).to_pylist():
                for name, margin in sorted(pair["margins"]):
                    yield DimensionMargin(pair["pair_id"], name, margin)

    def expected_rows(self, inputs: Inputs) -> int:
        """One for each pair: counted where there is a folder, else as many as the recipe expects."""
        if self.pictures.source.folder is None:
            return self.pictures.source.expected
        return inputs.table(self, ["id"]).num_rows


class ImportedScores(TableStage, Scored):
    """Files of pairs in; the scores that they give each picture or clip by itself out."""

    name: ClassVar = "import_scores"

    pictures: ImportedPictures

    def run(self, context: Context) -> Iterator[Score]:
        """A row for each picture and dimension that has a score, in the order of the files."""
        del context
        for batch in self.pictures.source.batches():
            batch = batch.filter(pc.is_null(batch["error"]))
            for side in SIDES:
                for sample, scores in zip(named(batch, side).to_pylist(), batch[f"scores_{side}"].to_pylist(), strict=True):
                    for dimension, value in sorted(scores) if scores else ():
                        yield Score(row_id(sample, self.name, sample, dimension), sample, SCORER, dimension, value, SCALE)
