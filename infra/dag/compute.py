"""A stage that computes in one piece: its context, and its files (all but the record)."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from infra.dag.stage import Lineage, Stage, TableStage
from infra.store.artifacts import RowReader, Store
from infra.store.tables import FileRecord, sha256_of, to_table, write_atomic, write_table

FILE_ROWS = 250_000
PROGRESS = "progress.json"


@dataclass(frozen=True)
class Computed:
    """Files of a stage, ready to be recorded."""

    files: list[FileRecord]
    tables: dict[str, list[FileRecord]]
    weights: list[FileRecord]
    metrics: dict[str, Any]


@dataclass
class StoreInputs:
    """Parents' finished artifacts."""

    store: Store

    def table(self, parent: Stage, columns: Sequence[str] | None = None, *, name: str | None = None) -> pa.Table:
        """See `infra.dag.stage.Inputs`."""
        row = parent.row if name is None else parent.tables[name]
        return self.store.artifact(parent).table(row, columns, name=name)

    def rows(self, parent: Stage, *, name: str | None = None) -> Iterator[Any]:
        """See `infra.dag.stage.Context`."""
        row = parent.row if name is None else parent.tables[name]
        return self.store.artifact(parent).rows(row, name=name)

    def lookup(self, parent: Stage) -> RowReader:
        """See `infra.dag.stage.RunInputs`."""
        return self.store.artifact(parent).reader(parent.row)

    def weights(self, parent: Stage) -> Path:
        """See `infra.dag.stage.Context`."""
        return self.store.artifact(parent).weights()


@dataclass
class TaskContext(StoreInputs):
    """The context of one stage's computation; implements `infra.dag.stage.Context`."""

    stage: Stage
    ancestors: list[Lineage]
    tables_written: dict[str, list[FileRecord]] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
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
    """Rows as `name`-00000.parquet …, in order, a quarter of a million a file; an empty table is one empty file."""
    iterator = iter(rows)
    files: list[FileRecord] = []
    while chunk := list(islice(iterator, FILE_ROWS)):
        files.append(write_table(to_table(chunk, row), directory / f"{name}-{len(files):05d}.parquet"))
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
    return settle(context, files)


def clear(directory: Path) -> None:
    """Removes what a killed attempt of a one-piece stage left."""
    shutil.rmtree(directory, ignore_errors=True)


def settle(context: TaskContext, files: list[FileRecord]) -> Computed:
    """Moves the weights to their place and adds an empty file for each side table nothing was emitted to."""
    directory = context.store.directory(context.stage)
    for name, row in context.stage.tables.items():
        if name not in context.tables_written:
            context.tables_written[name] = write_rows([], row, directory, name)
    if (directory / "weights.tmp").is_dir():
        shutil.rmtree(directory / "weights", ignore_errors=True)
        os.replace(directory / "weights.tmp", directory / "weights")
    return Computed(files, context.tables_written, weight_files(directory / "weights"), context.metrics)
