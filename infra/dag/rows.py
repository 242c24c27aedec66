"""A row-wise stage in a run: its plan, its shards on the executor's actors, and its files when all are there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from infra.dag.around import Executor, Progress
from infra.dag.compute import Computed, StoreInputs, TaskContext, WorkerInputs, finish_files
from infra.dag.failed import StageFailed, too_many_errors
from infra.dag.fingerprint import hash_rows, hash_table
from infra.dag.shards import (
    ERRORS,
    HASHES,
    RowError,
    collect_errors,
    drop_unsound,
    part_name,
    plan_shards,
    store_plan,
)
from infra.dag.stage import RowStage
from infra.store.tables import FileRecord, read_unrecorded, read_verified, write_table


@dataclass
class RowsOf:
    """The rows of one stage."""

    stage: RowStage
    context: TaskContext
    executor: Executor
    progress: Progress
    logs: Path
    """The folder of the workers' logs."""

    @property
    def directory(self) -> Path:
        """Of the stage's artifact."""
        return self.context.store.directory(self.stage)

    def compute(self, *, reuse: bool, source: dict[str, str] | None) -> tuple[Computed, int]:
        """What was computed, and how many of its rows were taken over.

        reuse: whether rows are taken over at all; source: only from artifacts of exactly this source, where it is given.
        """
        stage, directory = self.stage, self.directory
        inputs = StoreInputs(self.context.store)
        cells = stage.cells(inputs)
        options: dict[str, Any] = {"store": self.context.store, "contents": inputs, "reuse": reuse, "source": source}
        plan = plan_shards(stage, cells, **options)
        if plan.fresh and directory.exists():
            self.context.store.move_aside(stage)
            plan = plan_shards(stage, cells, **options)
        elif not plan.fresh and drop_unsound(directory, plan.cells, stage.shard_rows):
            plan = plan_shards(stage, cells, **options)
        store_plan(stage, plan, directory=directory)
        total, allowed = plan.cells.num_rows, stage.max_error_share * plan.cells.num_rows
        done, failed = 0, 0
        self.progress.advanced(stage.node, 0, plan.to_do, "")
        written: dict[int, tuple[FileRecord, bytes]] = {}
        if plan.todo:
            readable = WorkerInputs(self.context.store, stage)
            worker = stage.worker(readable)
            for shard in self.executor.shards(
                stage,
                directory,
                worker,
                plan.todo,
                places=readable,
                logs=self.logs,
                cancelled=lambda: failed > allowed,  # noqa: B023
            ):
                done += shard.computed + shard.errors
                failed += shard.errors
                written[shard.shard] = (shard.file, shard.hashes)
                self.progress.advanced(stage.node, done, plan.to_do, f"{failed} quarantined" if failed else "")
                if failed > allowed:
                    break
        errors = collect_errors(directory, set(plan.todo))
        if len(errors) > allowed:
            raise too_many_errors(stage, errors, total=total, directory=directory)
        shards = [written[k] if k in written else _found(directory, k) for k in range(plan.shards)]
        computed = self._complete(shards, errors, plan.cells["id"])
        return computed, total - len(errors) - (plan.to_do - failed)

    def _complete(self, shards: list[tuple[FileRecord, bytes]], errors: list[RowError], ids: pa.ChunkedArray) -> Computed:
        """All shards are there: gathers errors and hashes, lets the stage finish."""
        stage, directory, total = self.stage, self.directory, len(ids)
        files = [file for file, _ in shards]
        rows = sum(file.rows for file in files)
        if rows + len(errors) != total:
            raise StageFailed(stage.node, f"{total - rows - len(errors)} rows are neither computed nor quarantined")
        if not errors:
            (directory / ERRORS).unlink(missing_ok=True)
        kept = ids.filter(pc.invert(pc.is_in(ids, pa.array([error.id for error in errors], pa.string()))))
        hashes = write_table(hash_table(kept, (each for _, each in shards)), directory / HASHES)
        self.context.errors += errors
        stage.finish(self.context, lambda columns=None: _read(directory, files, columns))
        computed = finish_files(self.context, files)
        for path in directory.glob("errors-*.parquet"):
            path.unlink()
        return replace(computed, hashes=hashes)


def _found(directory: Path, shard: int) -> tuple[FileRecord, bytes]:
    """The record of a shard that a killed run had finished, and the hashes of its rows."""
    table, file = read_unrecorded(directory / part_name(shard))
    return file, b"".join(hash_rows(table).to_pylist())


def _read(directory: Path, files: Sequence[FileRecord], columns: Sequence[str] | None) -> Any:
    return pa.concat_tables([read_verified(directory / file.name, file, columns) for file in files])
