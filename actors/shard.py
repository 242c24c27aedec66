"""One shard, start to finish: take over what exists, compute the rest, quarantine what fails, write the file.

A plain class: an actor holds one, a test calls one. A row that raises is found by halving its batch; its exception
becomes a row of the stage's errors. What says that the device itself is gone ends the process instead, so that the pool
starts another.
"""

from __future__ import annotations

import gc
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from actors.device import device_of, prepare
from actors.resident import CannotOpen
from infra.dag.fingerprint import FINGERPRINT, hash_rows
from infra.dag.shards import CELLS, REUSE, RowError, ShardDone, errors_name, part_name
from infra.dag.stage import Places, Resources, Worker
from infra.store.record import read_record
from infra.store.tables import DamagedFile, check_schema, read_unrecorded, read_verified, schema_of, to_table, write_table

FATAL = ("OutOfMemoryError", "AcceleratorError", "EngineDeadError")


class DeviceLost(RuntimeError):
    """The process cannot go on: out of memory, or the accelerator reports an error it does not recover from."""


@dataclass(frozen=True)
class ShardJob:
    """What a runner needs to work on any shard of one stage."""

    directory: Path
    row: type
    shard_rows: int
    worker: Worker
    resources: Resources
    places: Places


def _fatal(error: Exception) -> bool:
    return isinstance(error, MemoryError) or type(error).__name__ in FATAL


def quarantined(cells: pa.Table, shard: int, error: BaseException, *, attempts: int) -> RowError:
    """The error row of a one-row table of cells."""
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))[-4000:]
    name = cells["id"][0].as_py()
    return RowError(id=name, shard=shard, type=type(error).__name__, message=str(error), traceback=text, attempts=attempts)


class ShardRunner:
    """Runs shards of one stage with one worker."""

    def __init__(self, job: ShardJob) -> None:
        self.job = job
        self.opened = False

    def open(self) -> None:
        """Loads the worker's models on the device that the stage's resources give it."""
        device = device_of(self.job.resources)
        prepare(device)
        self.job.worker.open(device, self.job.places)
        self.opened = True

    def close(self) -> None:
        """Lets go of the worker's models: the process may serve another stage next."""
        self.opened = False
        gc.collect()

    def cells(self, shard: int) -> pa.Table:
        """The plan's rows of a shard; a shard is one row group."""
        file = pq.ParquetFile(self.job.directory / CELLS)
        names = [name for name in file.schema_arrow.names if name != FINGERPRINT]
        if file.metadata.num_rows == 0:
            return file.schema_arrow.empty_table().select(names)
        return file.read_row_group(shard, columns=names)

    def run(self, shard: int, known: Sequence[RowError] = ()) -> ShardDone:
        """Writes the shard's file. `known`: rows already found to be fatal, not to be tried again."""
        cells = self.cells(shard)
        taken = self._take_over(cells)
        bad = pa.array([*(e.id for e in known), *taken["id"].to_pylist()], pa.string())
        computed, errors = self.compute(cells.filter(pc.invert(pc.is_in(cells["id"], bad))), shard)
        return self.write(shard, taken=taken, computed=computed, errors=[*known, *errors])

    def compute(self, cells: pa.Table, shard: int) -> tuple[pa.Table, list[RowError]]:
        """Rows of the cells that can be computed, and errors of those that cannot."""
        if not cells.num_rows:
            return schema_of(self.job.row).empty_table(), []
        if not self.opened:
            self.open()
        try:
            return self._sorted_out(self.job.worker.run(cells), cells, shard)
        except DamagedFile:
            raise  # no fault of the row: the file must be computed anew first
        except CannotOpen as error:
            if isinstance(error.__cause__, Exception) and _fatal(error.__cause__):
                raise DeviceLost(str(error)) from error
            raise  # no row can be computed without its model
        except Exception as error:
            if _fatal(error):
                raise DeviceLost(f"{type(error).__name__}: {error}") from error
            if cells.num_rows == 1:
                return schema_of(self.job.row).empty_table(), [quarantined(cells, shard, error, attempts=1)]
        half = cells.num_rows // 2
        left, left_errors = self.compute(cells.slice(0, half), shard)
        right, right_errors = self.compute(cells.slice(half), shard)
        return pa.concat_tables([left, right]), left_errors + right_errors

    def _sorted_out(
        self, results: Sequence[Any] | pa.Table, cells: pa.Table, shard: int
    ) -> tuple[pa.Table, list[RowError]]:
        """Rows, and an error for each result that is an exception; an exception of the device is raised."""
        if isinstance(results, pa.Table) or not any(isinstance(result, Exception) for result in results):
            return self._table(results, cells), []
        if len(results) != cells.num_rows:
            raise ValueError(f"{type(self.job.worker).__name__} must return one result for each of {cells.num_rows} cells")
        failed = {place: result for place, result in enumerate(results) if isinstance(result, Exception)}
        for error in failed.values():
            if _fatal(error):
                raise error
        kept = [place for place in range(cells.num_rows) if place not in failed]
        errors = [quarantined(cells.slice(place, 1), shard, error, attempts=1) for place, error in failed.items()]
        return self._table([results[place] for place in kept], cells.take(kept)), errors

    def _table(self, rows: Sequence[Any] | pa.Table, cells: pa.Table) -> pa.Table:
        table: pa.Table = rows if isinstance(rows, pa.Table) else to_table(rows, self.job.row)
        check_schema(table, self.job.row, place=f"the result of {type(self.job.worker).__name__}")
        if not table["id"].equals(cells["id"].cast(pa.string())):
            raise ValueError(f"{type(self.job.worker).__name__} must return one row a cell in the cells' order")
        return table

    def _take_over(self, cells: pa.Table) -> pa.Table:
        """Rows that stand in other artifacts of the stage; a damaged or vanished source is simply not used."""
        pieces = [schema_of(self.job.row).empty_table()]
        path = self.job.directory / REUSE
        plan = pq.read_table(path) if path.is_file() else None
        if plan is None or not plan.num_rows:
            return pieces[0]
        plan = plan.filter(pc.is_in(plan["id"], cells["id"].combine_chunks()))
        for source in plan.group_by(["directory", "part"]).aggregate([]).to_pylist():
            table = self._source(source["directory"], source["part"])
            if table is not None:
                here = pc.and_(pc.equal(plan["directory"], source["directory"]), pc.equal(plan["part"], source["part"]))
                pieces.append(table.filter(pc.is_in(table["id"], plan.filter(here)["id"].combine_chunks())))
        return pa.concat_tables(pieces)

    def _source(self, name: str, part: str) -> pa.Table | None:
        directory = self.job.directory.parent / name
        try:
            record = read_record(directory)
            if record is None:
                table, _ = read_unrecorded(directory / part)
            else:
                file = next(f for f in record.files if f.name == part)
                table = read_verified(directory / part, file)
            check_schema(table, self.job.row, place=str(directory / part))
        except (OSError, StopIteration, RuntimeError, ValueError):
            return None
        return table

    def write(self, shard: int, *, taken: pa.Table, computed: pa.Table, errors: Sequence[RowError]) -> ShardDone:
        """The shard's files: errors first, rows last, since the rows' file says that the shard is done."""
        rows = pa.concat_tables([taken, computed]).sort_by("id").replace_schema_metadata(schema_of(self.job.row).metadata)
        target = self.job.directory / errors_name(shard)
        if errors:
            write_table(to_table(sorted(errors, key=lambda e: e.id), RowError), target)
        else:
            target.unlink(missing_ok=True)
        file = write_table(rows, self.job.directory / part_name(shard))
        return ShardDone(
            shard=shard,
            file=file,
            computed=computed.num_rows,
            reused=taken.num_rows,
            errors=len(errors),
            hashes=b"".join(hash_rows(rows).to_pylist()),
        )
