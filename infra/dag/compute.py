"""A stage that computes in one piece: its context, and its files (all but the record)."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from infra.dag.fingerprint import hash_rows, hash_table, read_by
from infra.dag.shards import ERRORS, RowError
from infra.dag.stage import Lineage, RowStage, Stage, TableStage
from infra.store.artifacts import Artifact, RowReader, Store
from infra.store.tables import (
    FileRecord,
    check_schema,
    read_verified,
    schema_of,
    sha256_of,
    to_table,
    write_atomic,
    write_table,
)

FILE_ROWS = 250_000
PROGRESS = "progress.json"
WORKER_BUDGET = 2**28
"""Bytes of a parent's files that a worker of a row-wise stage keeps beyond what one call needs."""


@dataclass(frozen=True)
class Computed:
    """Files of a stage, ready to be recorded."""

    files: list[FileRecord]
    tables: dict[str, list[FileRecord]]
    weights: list[FileRecord]
    metrics: dict[str, Any]
    read: dict[str, Stage]  # stages whose content was read, by node
    errors: FileRecord | None = None
    hashes: FileRecord | None = None  # of each row, of a row-wise stage


@dataclass
class StoreInputs:
    """Parents' finished artifacts; `read` keeps the stages that were asked for, by node."""

    store: Store
    read: dict[str, Stage] = field(default_factory=dict, init=False)

    def artifact(self, parent: Stage) -> Artifact:
        """A finished stage's artifact; raises LookupError where it has not run."""
        self.read[parent.node] = parent
        return self.store.artifact(parent)

    def digest(self, stage: Stage) -> str | None:
        """See `infra.dag.fingerprint.Contents`."""
        return self.store.artifact(stage).record.digest

    def hashes(self, stage: Stage) -> pa.Table | None:
        """See `infra.dag.fingerprint.Contents`."""
        artifact = self.store.artifact(stage)
        stored = artifact.hashes()
        if stored is not None or "id" not in schema_of(stage.row).names:
            return stored
        # File by file: the media of all rows together may not fit into memory.
        tables = (read_verified(artifact.directory / file.name, file) for file in artifact.files(None))
        pieces = [hash_table(table["id"], hash_rows(table).to_pylist()) for table in tables]
        return pa.concat_tables(pieces or [hash_table(pa.array([], pa.string()), [])])

    def table(self, parent: Stage, columns: Sequence[str] | None = None, *, name: str | None = None) -> pa.Table:
        """See `infra.dag.stage.Inputs`."""
        row = parent.row if name is None else parent.tables[name]
        return self.artifact(parent).table(row, columns, name=name)

    def rows(self, parent: Stage, *, name: str | None = None) -> Iterator[Any]:
        """See `infra.dag.stage.Context`."""
        row = parent.row if name is None else parent.tables[name]
        return self.artifact(parent).rows(row, name=name)

    def lookup(self, parent: Stage) -> RowReader:
        """See `infra.dag.stage.RunInputs`."""
        return self.artifact(parent).reader(parent.row)

    def weights(self, parent: Stage) -> Path:
        """See `infra.dag.stage.Context`."""
        return self.artifact(parent).weights()


@dataclass
class WorkerInputs(StoreInputs):
    """What the worker of a row-wise stage may read: what the stage says it reads, for its rows are compared by that."""

    stage: RowStage

    def artifact(self, parent: Stage) -> Artifact:
        """See `StoreInputs`; raises TypeError for a stage that is not named."""
        if parent.key not in {one.key for one in read_by(self.stage)}:
            kind = type(self.stage).__name__
            raise TypeError(f"the worker of {kind} reads {parent.node}; name it in reads() or looks_up() of {kind}")
        return super().artifact(parent)

    def lookup(self, parent: Stage) -> RowReader:
        """See `StoreInputs`; cells are sorted, so a worker goes through its parent in order and keeps little of it."""
        return replace(super().lookup(parent), budget=WORKER_BUDGET)


@dataclass
class TaskContext(StoreInputs):
    """The context of one stage's computation; implements `infra.dag.stage.Context`."""

    stage: Stage
    ancestors: list[Lineage]
    tables_written: dict[str, list[FileRecord]] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    errors: list[RowError] = field(default_factory=list)
    _last: float = 0.0

    @property
    def weights_out(self) -> Path:
        """Where to write weights; becomes `weights/` of the artifact when the stage is done."""
        folder = self.store.directory(self.stage) / "weights.tmp"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def scratch(self) -> Path:
        """A folder that survives a kill and goes when the stage is recorded."""
        folder = self.store.scratch(self.stage)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def quarantine(self, row: str, reason: str | Exception) -> None:
        """See `infra.dag.stage.Context`."""
        kind = type(reason).__name__ if isinstance(reason, Exception) else "Quarantined"
        self.errors.append(RowError(row, shard=0, type=kind, message=str(reason), traceback="", attempts=1))

    def emit(self, name: str, rows: Iterable[Any]) -> None:
        """Writes the side table `name`."""
        if name not in self.stage.tables:
            raise KeyError(f"{self.stage.name} declares no table {name!r}")
        self.tables_written[name] = write_rows(rows, self.stage.tables[name], self.store.directory(self.stage), name)

    def metric(self, name: str, value: Any) -> None:
        """A JSON value for the record."""
        self.metrics[name] = value

    def progress(self, done: int, total: int, note: str = "") -> None:
        """At most twice a second, through a file: the driver may be on another machine."""
        now = time.monotonic()
        if now - self._last > 0.5 or done == total:
            self._last = now
            data = json.dumps({"done": done, "total": total, "note": note}).encode()
            write_atomic(self.scratch / PROGRESS, data)

    def lineage(self) -> list[Lineage]:
        """See `infra.dag.stage.Context`."""
        return self.ancestors


def write_rows(rows: Iterable[Any], row: type, directory: Path, name: str) -> list[FileRecord]:
    """Rows as `name`-00000.parquet …, in order, a quarter of a million per file; an empty table is one empty file.

    Rows are objects of the row class, or tables of its schema, each of which becomes a file.
    """
    iterator = iter(rows)
    files: list[FileRecord] = []
    for first in iterator:
        if isinstance(first, pa.Table):
            table = first
            check_schema(table, row, place=f"a table of {name}")
        else:
            table = to_table([first, *islice(iterator, FILE_ROWS - 1)], row)
        files.append(write_table(table, directory / f"{name}-{len(files):05d}.parquet"))
    return files or [write_table(to_table([], row), directory / f"{name}-00000.parquet")]


def weight_files(folder: Path) -> list[FileRecord]:
    """Records of every file below a weights folder."""
    if not folder.is_dir():
        return []
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [FileRecord(p.relative_to(folder).as_posix(), p.stat().st_size, sha256_of(p), 0) for p in paths]


def compute(stage: TableStage, root: Path, ancestors: list[Lineage]) -> Computed:
    """Runs a stage and writes its rows, tables and weights; what an earlier, killed attempt left is replaced."""
    store = Store(root)
    directory = store.directory(stage)
    clear(directory)
    directory.mkdir(parents=True, exist_ok=True)
    context = TaskContext(store=store, stage=stage, ancestors=ancestors)
    files = write_rows(stage.run(context), stage.row, directory, "part")
    return finish_files(context, files)


def clear(directory: Path) -> None:
    """Removes what a killed attempt of a one-piece stage left."""
    shutil.rmtree(directory, ignore_errors=True)


def finish_files(context: TaskContext, files: list[FileRecord]) -> Computed:
    """Moves the weights to their place, writes the errors, and an empty file for each side table without rows."""
    directory = context.store.directory(context.stage)
    for name, row in context.stage.tables.items():
        if name not in context.tables_written:
            context.tables_written[name] = write_rows([], row, directory, name)
    if (directory / "weights.tmp").is_dir():
        shutil.rmtree(directory / "weights", ignore_errors=True)
        os.replace(directory / "weights.tmp", directory / "weights")
    weights = weight_files(directory / "weights")
    rows = sorted(context.errors, key=lambda error: error.id)
    errors = write_table(to_table(rows, RowError), directory / ERRORS) if rows else None
    return Computed(files, context.tables_written, weights, context.metrics, read=context.read, errors=errors)
