"""Running a DAG: locks, hits, what is missing, records, and the run's own file."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from infra.config import ConfigError
from infra.dag.around import Executor, Progress
from infra.dag.compute import PROGRESS, Computed, StoreInputs, TaskContext, WorkerInputs, compute, finish_files
from infra.dag.fingerprint import hash_rows, hash_table, read_by
from infra.dag.plan import HIT, CachePolicy, Planner
from infra.dag.selection import Selection
from infra.dag.shards import (
    ERRORS,
    HASHES,
    REUSE,
    RowError,
    collect_errors,
    drop_unsound,
    part_name,
    plan_shards,
    store_plan,
)
from infra.dag.source import Sources, commit, libraries
from infra.dag.stage import Lineage, RowStage, Stage, TableStage, topological
from infra.store.artifacts import Store
from infra.store.record import ParentRecord, Record, read_record
from infra.store.runs import WORKER_LOGS, RunFile
from infra.store.tables import (
    DamagedFile,
    FileRecord,
    from_table,
    read_unrecorded,
    read_verified,
    write_table,
)


class StageFailed(RuntimeError):
    """A stage that did not finish; the message names it, what to do, and the run's log."""

    def __init__(self, node: str, reason: str) -> None:
        super().__init__(f"stage {node} failed: {reason}")
        self.node = node
        self.log: Path | None = None
        self.workers: Path | None = None

    def __str__(self) -> str:
        places = (("log of the run", self.log), ("logs of its workers", self.workers))
        return super().__str__() + "".join(f"\n{what}: {path}" for what, path in places if path)


@dataclass
class Runner:
    """One run of a DAG over a store."""

    store: Store
    executor: Executor
    progress: Progress
    policy: CachePolicy = field(default_factory=CachePolicy)
    recipe: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    name: str = ""
    outcomes: dict[str, Lineage] = field(default_factory=dict)
    _started: datetime = field(init=False)

    def run(self, target: Stage, selection: Selection) -> dict[str, Lineage]:
        """Computes what is missing of the chosen stages; raises StageFailed at the first that cannot be finished."""
        order = topological(target)
        chosen = selection.of(order)
        self._require_outside(chosen)
        file = self._begin()
        self._write_run(file, order, "running")
        policy = CachePolicy(selection.forced(order), self.policy.retry_errors, self.policy.strict_code, self.policy.verify)
        sources = Sources(self.store.root / "cache" / "source.json")
        planner = Planner(store=self.store, policy=policy, sources=sources)
        status = "failed"
        try:
            for stage in order:
                if stage in chosen:
                    self._settle(stage, planner)
                elif read_record(self.store.directory(stage)) is not None:
                    self.outcomes[stage.key] = self._lineage(stage, HIT)
                self._write_run(file, order, "running")
            status = "done"
        except StageFailed as error:
            error.log = file.log
            error.workers = self.worker_logs if self.worker_logs.is_dir() else None
            file.line(str(error))
            raise
        finally:
            sources.save()
            self._write_run(file, order, status)
            file.line(f"run {file.name}: {status}")
        return self.outcomes

    @property
    def worker_logs(self) -> Path:
        """The folder of the workers' logs: runs/NAME.workers."""
        return self.store.root / "runs" / f"{self.name}{WORKER_LOGS}"

    def _begin(self) -> RunFile:
        """Claims the run's name, which may get a number, and begins its log."""
        asked, self._started = self.name, datetime.now(UTC)
        file = RunFile.claim(self.store, asked, recipe=self.recipe, started=self._started)
        self.name = file.name
        self.progress.log_to(file.line)
        if asked and asked != file.name:
            self.progress.said(f"run {asked} is there already; this one is called {file.name}")
        file.line(f"run {file.name}: recipe {self.recipe}, arguments {self.arguments}, commit {commit()}")
        return file

    def _require_outside(self, chosen: Sequence[Stage]) -> None:
        inside = {stage.key for stage in chosen}
        for stage in chosen:
            for parent in stage.parents.values():
                if parent.key not in inside and read_record(self.store.directory(parent)) is None:
                    raise ConfigError(
                        f"stage {stage.node} needs {parent.node}, which is not there; "
                        f"run it first with --until {parent.node}"
                    )

    def _settle(self, stage: Stage, planner: Planner) -> None:
        """A hit, or computed; another run that computes the same key is waited for."""
        with self.store.lock(stage) as waited:
            plan = planner.plan(stage)
            if waited:
                self.progress.said(f"{stage.node}: another run computed it meanwhile")
            self.progress.planned(plan)
            if plan.state == HIT:
                self.outcomes[stage.key] = self._lineage(stage, HIT)
                return
            try:
                with self.executor.connected():
                    record = self._compute(stage, planner)
            except DamagedFile as error:
                # Out of the way, so that it is no hit any more and the next run computes just this file.
                if error.path.is_file():
                    error.path.rename(error.path.with_name(f"{error.path.name}.damaged"))
                raise StageFailed(stage.node, f"{error}") from error
            except (ConfigError, StageFailed, KeyboardInterrupt):
                raise
            except Exception as error:
                raise StageFailed(stage.node, f"{type(error).__name__}: {error}") from error
            planner.foreseen.settled(stage)
            self.outcomes[stage.key] = self._lineage(stage, "computed")
            self.progress.finished(stage.node, record)

    def _lineage(self, stage: Stage, state: str) -> Lineage:
        record = read_record(self.store.directory(stage))
        assert record is not None
        parents = tuple(parent.node for parent in stage.parents.values())
        return Lineage(
            node=stage.node,
            stage=stage.name,
            key=stage.key,
            state=state,
            seconds=record.seconds,
            rows=record.rows,
            error_rows=record.error_rows,
            reused_rows=record.reused_rows,
            parents=parents,
            metrics=record.metrics,
        )

    def _compute(self, stage: Stage, planner: Planner) -> Record:
        began = time.monotonic()
        self._retire_old(stage, planner)
        if isinstance(stage, RowStage):
            computed, reused = self._row_wise(stage, planner)
        elif isinstance(stage, TableStage):
            computed, reused = self._in_one_piece(stage), 0
        else:
            raise TypeError(f"{type(stage).__name__} is neither a RowStage nor a TableStage")
        rows = sum(file.rows for file in computed.files)
        record = Record(
            stage=stage.name,
            version=stage.version,
            key=stage.key,
            identity=stage.description,
            parents=self._parents(stage, computed),
            files=computed.files,
            tables=computed.tables,
            weights=computed.weights,
            errors=computed.errors,
            hashes=computed.hashes,
            rows=rows,
            error_rows=computed.errors.rows if computed.errors else 0,
            computed_rows=rows - reused,
            reused_rows=reused,
            seconds=round(time.monotonic() - began, 3),
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            source=planner.sources.of(stage),
            libraries=libraries(),
            commit=commit(),
            metrics=computed.metrics | _workers(stage),
        )
        record.write(self.store.directory(stage))
        self.store.forget_scratch(stage)
        (self.store.directory(stage) / REUSE).unlink(missing_ok=True)
        return record

    def _parents(self, stage: Stage, computed: Computed) -> dict[str, ParentRecord]:
        """Its parents by their place, and by node what else it read: a grandparent's latents, say."""
        read = {**computed.read, **({s.node: s for s in read_by(stage)} if isinstance(stage, RowStage) else {})}
        own = {parent.key for parent in stage.parents.values()}
        every = stage.parents | {node: other for node, other in read.items() if other.key not in own}
        return {
            name: ParentRecord(other.name, other.key, self.store.artifact(other).record.digest)
            for name, other in every.items()
        }

    def _retire_old(self, stage: Stage, planner: Planner) -> None:
        """Puts a superseded artifact aside, and makes a damaged one an unfinished one."""
        found = self.store.inspect(stage, verify=planner.policy.verify)
        if stage.key in planner.policy.force and self.store.directory(stage).exists():
            self.store.move_aside(stage)
        elif found.damaged:
            self.store.unrecord(stage, found.damaged)
        elif found.record is not None:
            self.store.move_aside(stage)

    def _ancestors(self, stage: Stage) -> list[Lineage]:
        return [self.outcomes[s.key] for s in topological(stage)[:-1] if s.key in self.outcomes]

    def _in_one_piece(self, stage: TableStage) -> Computed:
        progress_file = self.store.scratch(stage) / PROGRESS

        def poll() -> None:
            try:
                told = json.loads(progress_file.read_text())
            except (OSError, json.JSONDecodeError):
                return
            self.progress.advanced(stage.node, told["done"], told["total"], told["note"])

        arguments = (stage, self.store.root, self._ancestors(stage))
        self.executor.make_room(stage.resources)
        computed: Computed = self.executor.call(compute, *arguments, poll=poll)
        if computed.errors is not None:
            total = computed.errors.rows + sum(file.rows for file in computed.files)
            if computed.errors.rows > stage.max_error_share * total:
                errors = read_verified(self.store.directory(stage) / computed.errors.name, computed.errors)
                raise StageFailed(stage.node, self._too_many(stage, list(from_table(errors, RowError)), total))
        return computed

    def _row_wise(self, stage: RowStage, planner: Planner) -> tuple[Computed, int]:
        """What was computed, and how many of its rows were taken over."""
        inputs = StoreInputs(self.store)
        directory = self.store.directory(stage)
        cells = stage.cells(inputs)
        reuse, source = stage.key not in planner.policy.force, planner.reuse_source(stage)
        options: dict[str, Any] = {"store": self.store, "contents": inputs, "reuse": reuse, "source": source}
        plan = plan_shards(stage, cells, **options)
        if plan.fresh and directory.exists():
            self.store.move_aside(stage)
            plan = plan_shards(stage, cells, **options)
        elif not plan.fresh and drop_unsound(directory, plan.cells, stage.shard_rows):
            plan = plan_shards(stage, cells, **options)
        store_plan(stage, plan, directory=directory)
        total, allowed = plan.cells.num_rows, stage.max_error_share * plan.cells.num_rows
        done, failed = 0, 0
        self.progress.advanced(stage.node, 0, plan.to_do, "")
        written: dict[int, tuple[FileRecord, bytes]] = {}
        if plan.todo:
            readable = WorkerInputs(self.store, stage)
            worker = stage.worker(readable)
            for shard in self.executor.shards(
                stage,
                directory,
                worker,
                plan.todo,
                places=readable,
                logs=self.worker_logs,
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
            raise StageFailed(stage.node, self._too_many(stage, errors, total))
        shards = [written[k] if k in written else self._found(directory, k) for k in range(plan.shards)]
        computed = self._complete(stage, shards, errors, plan.cells["id"])
        return computed, total - len(errors) - (plan.to_do - failed)

    @staticmethod
    def _found(directory: Path, shard: int) -> tuple[FileRecord, bytes]:
        """The record of a shard that a killed run had finished, and the hashes of its rows."""
        table, file = read_unrecorded(directory / part_name(shard))
        return file, b"".join(hash_rows(table).to_pylist())

    def _too_many(self, stage: Stage, errors: Sequence[RowError], total: int) -> str:
        first = errors[0]
        return (
            f"{len(errors)} of {total} rows were quarantined, above max_error_share = {stage.max_error_share:g}; "
            f"row {first.id}: {first.type}: {first.message}; see "
            f"{self.store.directory(stage)}/errors*.parquet"
        )

    def _complete(
        self, stage: RowStage, shards: list[tuple[FileRecord, bytes]], errors: list[RowError], ids: pa.ChunkedArray
    ) -> Computed:
        """All shards are there: gathers errors and hashes, lets the stage finish."""
        directory, total = self.store.directory(stage), len(ids)
        files = [file for file, _ in shards]
        rows = sum(file.rows for file in files)
        if rows + len(errors) != total:
            raise StageFailed(stage.node, f"{total - rows - len(errors)} rows are neither computed nor quarantined")
        if not errors:
            (directory / ERRORS).unlink(missing_ok=True)
        kept = ids.filter(pc.invert(pc.is_in(ids, pa.array([error.id for error in errors], pa.string()))))
        hashes = write_table(hash_table(kept, (each for _, each in shards)), directory / HASHES)
        context = TaskContext(store=self.store, stage=stage, ancestors=self._ancestors(stage))
        context.errors += errors
        stage.finish(context, lambda columns=None: _read(directory, files, columns))
        computed = finish_files(context, files)
        for path in directory.glob("errors-*.parquet"):
            path.unlink()
        return replace(computed, hashes=hashes)

    def _write_run(self, file: RunFile, order: Sequence[Stage], status: str) -> None:
        done = [self.outcomes[stage.key] for stage in order if stage.key in self.outcomes]
        data = {
            "recipe": self.recipe,
            "arguments": self.arguments,
            "started": self._started.isoformat(timespec="milliseconds"),
            "status": status,
            "keys": [[stage.name, stage.key] for stage in order],
            "commit": commit(),
            "stages": [asdict(outcome) for outcome in done],
        }
        file.write(data)


def _read(directory: Path, files: Sequence[FileRecord], columns: Sequence[str] | None) -> Any:
    return pa.concat_tables([read_verified(directory / file.name, file, columns) for file in files])


def _workers(stage: Stage) -> dict[str, float]:
    """Who computed the rows of a row-wise stage: by this `plan` foretells how long others will take."""
    return {"workers": stage.resources.workers, "gpus": stage.resources.gpus} if isinstance(stage, RowStage) else {}
