"""A judged export: the labels of a run with their pictures or clips, in the order in which the files lie."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from infra.config import ConfigError
from infra.store.artifacts import Artifact, RowReader, Store
from infra.store.runs import artifact_of, nodes_of, read_runs, run_named
from pipelines.exchange.formats import format_named
from pipelines.exchange.pairs import Layout, PairWithMedia
from pipelines.schemas.samples import Clip, Picture
from pipelines.schemas.votes import DimensionMargin, PairSubset, Preference

LABELS = ("label", "import_labels")
PICTURES = {"render": Picture, "render_clips": Clip, "import": Picture, "import_clips": Clip}
BATCH_PAIRS = 256
"""Pairs held in memory."""


@dataclass
class Judged:
    """Labels of a run and the pictures they are about; counts what is written."""

    labels: Artifact
    pictures: Artifact
    row: type
    ties: int = 0
    written: int = 0
    _margins: pa.Table = field(init=False)
    _subsets: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        empty = self.labels.table(Preference, ["id"]).slice(0, 0)
        there = "dimensions" in self.labels.record.tables
        self._margins = self.labels.table(DimensionMargin, name="dimensions") if there else empty
        named = self.labels.table(PairSubset, name="subsets") if "subsets" in self.labels.record.tables else None
        self._subsets = {} if named is None else dict(zip(*(column.to_pylist() for column in named.columns), strict=True))

    @property
    def medium(self) -> str:
        """Column of the files: image or video."""
        return "video" if self.row is Clip else "image"

    @property
    def dimensions(self) -> list[str]:
        """The dimensions in which any pair has a margin."""
        return sorted(self._margins["dimension"].unique().to_pylist()) if self._margins.num_rows else []

    @property
    def subsets(self) -> bool:
        """Whether a pair names its part of the data set."""
        return bool(self._subsets)

    def pairs(self, *, ties: bool) -> Iterator[PairWithMedia]:
        """The pairs in the order of their pictures' files; ties are left out and counted unless they are wanted."""
        names = [n for n in Preference.__dataclass_fields__ if not n.startswith("votes") and n != "prompt_id"]
        table = self.labels.table(Preference, names)
        # The first four characters of a picture's id are its maker's or its file's: both sides are read front to back.
        makers = {f"maker_{side}": pc.utf8_slice_codeunits(table[f"picture_{side}"], 0, 4) for side in "ab"}
        for name, column in makers.items():
            table = table.append_column(name, column)
        table = table.sort_by([(name, "ascending") for name in (*makers, "picture_a")])
        if not ties:
            tied = pc.equal(table["choice"], "tie")
            self.ties = pc.sum(tied).as_py() or 0
            table = table.filter(pc.invert(tied))
        reader = RowReader(self.pictures.directory, tuple(self.pictures.record.files), self.row)
        for start in range(0, table.num_rows, BATCH_PAIRS):
            yield from self._batch(table.slice(start, BATCH_PAIRS), reader)

    def _batch(self, table: pa.Table, reader: RowReader) -> Iterator[PairWithMedia]:
        data = {}
        for side in "ab":
            found = reader.take(table[f"picture_{side}"].to_pylist(), [self.medium])
            data[side] = found[self.medium]
        margins: dict[str, dict[str, float]] = {}
        if self._margins.num_rows:
            chosen = self._margins.filter(pc.is_in(self._margins["pair_id"], table["id"].combine_chunks()))
            for row in chosen.to_pylist():
                margins.setdefault(row["pair_id"], {})[row["dimension"]] = row["margin"]
        for number, row in enumerate(table.to_pylist()):
            self.written += 1
            yield PairWithMedia(
                id=row["id"],
                prompt=row["text"],
                **{name: row[name] for name in ("choice", "agreement", "score", "generator_a", "generator_b")},
                a=data["a"][number]["bytes"].as_py(),
                b=data["b"][number]["bytes"].as_py(),
                margins=margins.get(row["id"], {}),
                subset=self._subsets.get(row["id"], ""),
            )


def judged_of(store: Store, run: str | None, node: str | None) -> Judged:
    """The labels of a run (by name, or the newest with some) and their pictures; raises ConfigError with what there is."""
    newest = run_named(store, run)
    for one in [newest] if run else reversed(read_runs(store).readable):
        if (found := judged_in(store, one, node)) is not None:
            return found
    raise ConfigError(f"{run or 'no run'} in {store.root} has no labels; salon run or salon import makes some")


def judged_in(store: Store, run: Mapping[str, Any], node: str | None) -> Judged | None:
    """The labels of a run, those of a node or its only ones, and their pictures; None where it has none."""
    found = nodes_of(run, LABELS)
    if not found:
        return None
    if node is not None and node not in found:
        raise ConfigError(f"run {run['name']} has no labels {node!r}; it has {', '.join(found)}")
    if node is None and LABELS[0] in found:
        node = LABELS[0]  # the recipe's own; labels of an evaluation have a name of their own
    if node is None and len(found) > 1:
        raise ConfigError(f"run {run['name']} has several labels; choose with --labels: {', '.join(found)}")
    return pictured(store, artifact_of(store, found[node] if node else next(iter(found.values()))))


def pictured(store: Store, labels: Artifact) -> Judged:
    """Labels with the nearest pictures among their ancestors."""
    level = [labels]
    while level:
        parents = [parent for one in level for parent in one.record.parents.values()]
        near = [parent for parent in parents if parent.stage in PICTURES]
        if near:
            pictures = artifact_of(store, {"stage": near[0].stage, "key": near[0].key})
            return Judged(labels, pictures, PICTURES[near[0].stage])
        level = [artifact_of(store, {"stage": parent.stage, "key": parent.key}) for parent in parents]
    raise ConfigError(f"{labels.directory} has no pictures among its ancestors")


def write_judged(found: Judged, out: Path, *, format: str, renamed: Mapping[str, str]) -> None:
    """Writes the files under their final name or not at all; raises ConfigError where the format cannot hold them.

    `renamed`: the name in the files of a column of the format.
    """
    kind = format_named(format)
    if found.medium not in kind.holds:
        raise ConfigError(f"format {kind.name} holds {kind.holds[0]}s, and this run has {found.medium}s; choose another")
    require_new(out)
    temporary = out.with_name(f".{out.name}.tmp-{os.getpid()}")
    temporary.mkdir(parents=True)
    try:
        pairs = found.pairs(ties=kind.ties)
        kind.write(pairs, temporary, layout=Layout(found.medium, found.dimensions, found.subsets, renamed))
        if not found.written:
            raise ConfigError(f"there is no pair to write; {found.ties} ties, which {kind.name} cannot hold")
        if out.is_dir():
            out.rmdir()
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def require_new(out: Path) -> None:
    """Raises ConfigError for a folder that holds something, and for a file."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is there already; give a new folder")
