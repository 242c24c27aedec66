"""Running a DAG: locks, hits, what is missing, records, and the run's own file."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from infra.config import ConfigError
from infra.dag.around import Executor, Progress
from infra.dag.compute import PROGRESS, Computed, TaskContext, compute
from infra.dag.failed import StageFailed, too_many_errors
from infra.dag.fingerprint import read_by
from infra.dag.plan import HIT, CachePolicy, Planner
from infra.dag.rows import RowsOf
from infra.dag.schedule import Interrupted, Schedule
from infra.dag.selection import Selection
from infra.dag.shards import (
    REUSE,
    RowError,
)
from infra.dag.source import Sources, commit, libraries
from infra.dag.stage import Lineage, RowStage, Stage, TableStage, topological
from infra.store.artifacts import Store
from infra.store.record import ParentRecord, Record, read_record
from infra.store.runs import WORKER_LOGS, RunFile
from infra.store.tables import (
    DamagedFile,
    from_table,
    read_verified,
)

ANEW = "give --root the store of that run, or run its recipe again"


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
    schedule: Schedule = field(default_factory=Schedule)
    _started: datetime = field(init=False)
    _told: Callable[[], None] = field(init=False)

    def run(self, target: Stage, selection: Selection) -> dict[str, Lineage]:
        """Computes what is missing of the chosen stages; raises StageFailed at the first that cannot be finished.

        Stages in one piece are computed beside one another where the cluster has room; those that run when one fails are
        waited for, since what they have done would be lost.
        """
        order = topological(target)
        chosen = selection.of(order)
        self._require_outside(chosen)
        file = self._begin()
        self._write_run(file, order, "running")
        policy = CachePolicy(selection.forced(order), self.policy.retry_errors, self.policy.strict_code, self.policy.verify)
        sources = Sources(self.store.root / "cache" / "source.json")
        planner = Planner(store=self.store, policy=policy, sources=sources)
        self._told = lambda: self._write_run(file, order, "running")
        status = "failed"
        try:
            for stage in order:
                if stage not in chosen and read_record(self.store.directory(stage)) is not None:
                    self.outcomes[stage.key] = self._lineage(stage, HIT)
            self.schedule.run(
                [stage for stage in order if stage in chosen],
                settle=lambda stage: self._settle(stage, planner),
                room=self.executor.room_beside,
                failed=lambda error: self.progress.said(str(error)),
            )
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

    def _settle(self, stage: Stage, planner: Planner) -> Callable[[], None] | None:
        """None for a hit, else what computes it. Another run that computes the same key is waited for."""
        with ExitStack() as locked:
            waited = locked.enter_context(self.store.lock(stage))
            with self.schedule.turn:
                plan = planner.plan(stage)
                if waited:
                    self.progress.said(f"{stage.node}: another run computed it meanwhile")
                self.progress.planned(plan)
                if plan.state == HIT:
                    self._settled(stage, HIT)
                    return None
                if stage.elsewhere:  # before anything of it is moved aside
                    why = "; ".join(plan.why)
                    raise ConfigError(f"{stage.node} {stage.key} is of another run and not computed here ({why}); {ANEW}")
            self._connect(stage)
            return partial(self._locked, locked.pop_all(), stage, planner)

    def _connect(self, stage: Stage) -> None:
        """Connects to the cluster in the run's own thread, which alone may."""
        try:
            with self.executor.connected():
                return
        except ConfigError:
            raise
        except Exception as error:
            raise StageFailed(stage.node, f"{type(error).__name__}: {error}") from error

    def _locked(self, locked: ExitStack, stage: Stage, planner: Planner) -> None:
        """Computes a stage that is missing, and lets go of its lock."""
        with locked:
            try:
                record = self._compute(stage, planner)
            except DamagedFile as error:
                # Out of the way, so that it is no hit any more and the next run computes just this file.
                if error.path.is_file():
                    error.path.rename(error.path.with_name(f"{error.path.name}.damaged"))
                raise StageFailed(stage.node, f"{error}") from error
            except (ConfigError, StageFailed, Interrupted):
                raise
            except Exception as error:
                raise StageFailed(stage.node, f"{type(error).__name__}: {error}") from error
            planner.foreseen.settled(stage)
            self._settled(stage, "computed")
            self.progress.finished(stage.node, record)

    def _settled(self, stage: Stage, state: str) -> None:
        self.outcomes[stage.key] = self._lineage(stage, state)
        self._told()

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
            context = TaskContext(store=self.store, stage=stage, ancestors=self._ancestors(stage))
            reuse, source = stage.key not in planner.policy.force, planner.reuse_source(stage)
            rows = RowsOf(stage, context, self.executor, self.progress, self.worker_logs)
            computed, reused = rows.compute(reuse=reuse, source=source)
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
            self.schedule.require_going_on()
            try:
                told = json.loads(progress_file.read_text())
            except (OSError, json.JSONDecodeError):
                return
            with self.schedule.turn:
                self.progress.advanced(stage.node, told["done"], told["total"], told["note"])

        arguments = (stage, self.store.root, self._ancestors(stage))
        self.executor.make_room(stage.resources)
        with self.schedule.others_turn():
            computed: Computed = self.executor.call(compute, *arguments, poll=poll)
        if computed.errors is not None:
            total = computed.errors.rows + sum(file.rows for file in computed.files)
            if computed.errors.rows > stage.max_error_share * total:
                errors = read_verified(self.store.directory(stage) / computed.errors.name, computed.errors)
                raise too_many_errors(
                    stage, list(from_table(errors, RowError)), total=total, directory=self.store.directory(stage)
                )
        return computed

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


def _workers(stage: Stage) -> dict[str, float]:
    """Who computed the rows of a row-wise stage: by this `plan` foretells how long others will take."""
    return {"workers": stage.resources.workers, "gpus": stage.resources.gpus} if isinstance(stage, RowStage) else {}
