"""N actors over a stored shard plan: bounded in flight, retries, quarantine of rows that kill, a watchdog.

Actors are kept from stage to stage (a fresh process costs seconds of imports). An actor that dies is replaced; its shard
is tried once more, then halved on fresh actors until the row that kills is alone, and that row is quarantined. Without a
finished shard for `stall_s` the busy actors are killed and their rows suspected in the same way: nothing hangs. Whatever
is waited for, from the start of the first actor on, ends at once where the Ray of this machine has ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, GetTimeoutError, RayActorError, RayTaskError

from actors.device import hide_gpus
from actors.shard import DeviceLost, ShardJob, ShardRunner, quarantined
from actors.worker_log import WorkerLog
from infra.cluster.connection import options, require_own_node
from infra.dag.shards import RowError, ShardDone
from infra.dag.stage import Resources
from infra.store.tables import DamagedFile

OPEN_TRIES = 3
LOOK_S = 2.0
"""Between two looks, while waiting, at whether the Ray of this machine is still there."""


class PoolError(RuntimeError):
    """A stage that cannot go on; says which actor and rows."""


class RowKilledItsActor(RuntimeError):
    """The exception recorded for a row whose computation ended its process or never came back."""


class _Host:
    """What Ray wraps: one process that can serve one stage after another."""

    def __init__(self) -> None:
        self.runner: ShardRunner | None = None
        self.log: WorkerLog | None = None

    def serve(self, job: ShardJob, logs: Path | None) -> None:
        """Becomes the runner of a stage; `logs`: the folder of the run's worker logs."""
        hide_gpus(job.resources)
        if logs is not None and self.log is None:
            self.log = WorkerLog(logs)
        elif logs is not None and self.log is not None and self.log.path.parent != logs:
            self.log.follow(logs)
        if self.log is not None:
            self.log.line(f"serves {type(job.worker).__name__} of {job.directory.parent.name}")
        if self.runner is not None:
            self.runner.close()
        self.runner = ShardRunner(job)
        self.runner.open()

    def run(self, shard: int, known: list[RowError]) -> ShardDone:
        assert self.runner is not None
        return self.runner.run(shard, known)

    def probe(self, shard: int, start: int, stop: int) -> list[RowError]:
        """Computes part of a shard for nothing but to see whether the process survives it."""
        assert self.runner is not None
        _, errors = self.runner.compute(self.runner.cells(shard).slice(start, stop - start), shard)
        return errors


@dataclass
class _Slot:
    """One actor and what it is doing."""

    actor: Any
    ready: bool = False
    shard: int | None = None
    reference: Any = None
    since: float = 0.0


@dataclass
class Pool:
    """Actors for row-wise stages; keep one for a whole run, close it at the end."""

    resources: Resources
    slots: list[_Slot] = field(default_factory=list)
    logs: Path | None = None
    """Folder in which each actor keeps a log of its own; None for none."""

    def _start(self) -> _Slot:
        host = ray.remote(_Host)
        return _Slot(actor=host.options(**options(self.resources), max_restarts=0).remote())

    def _replace(self, slot: _Slot, job: ShardJob) -> None:
        """A fresh process in a slot, serving the job."""
        ray.kill(slot.actor, no_restart=True)
        fresh = self._start()
        slot.actor, slot.ready = fresh.actor, False
        self._serve([slot], job)

    def _serve(self, slots: Iterable[_Slot], job: ShardJob) -> None:
        """Loads the stage's models in these slots; an exception while loading ends the stage, a death is retried."""
        waiting = list(slots)
        for attempt in range(OPEN_TRIES):  # noqa: B007
            references = [slot.actor.serve.remote(job, self.logs) for slot in waiting]
            failed = []
            for slot, reference in zip(waiting, references, strict=True):
                try:
                    self._answer(reference)
                    slot.ready = True
                except RayTaskError as error:
                    raise PoolError(f"{type(job.worker).__name__} could not be loaded: {error.cause!r}") from error
                except (RayActorError, GetTimeoutError):
                    failed.append(slot)
            if not failed:
                return
            for slot in failed:
                ray.kill(slot.actor, no_restart=True)
                slot.actor = self._start().actor
            waiting = failed
        raise PoolError(
            f"{type(job.worker).__name__} ended its process {attempt + 1} times while loading; "
            f"{f'its logs are in {self.logs}; ' if self.logs else ''}give the stage's Resources more memory_gb"
        )

    def _answer(self, reference: ray.ObjectRef[Any]) -> Any:
        """What an actor answers; GetTimeoutError after `stall_s`, ClusterGone where no answer can come."""
        deadline = time.monotonic() + self.resources.stall_s
        while True:
            left = deadline - time.monotonic()
            if ray.wait([reference], timeout=max(min(left, LOOK_S), 0.0))[0] or left <= 0:
                return ray.get(reference, timeout=0)
            require_own_node()

    def run(self, job: ShardJob, todo: Iterable[int], *, cancelled: Callable[[], bool]) -> Iterator[ShardDone]:
        """Runs the shards in `todo`; yields each when its file is on disk, in the order of completion."""
        queue = list(todo)[::-1]
        while len(self.slots) < min(self.resources.workers, max(len(queue), 1)):
            self.slots.append(self._start())
        active = self.slots[: min(self.resources.workers, len(queue))]
        self._serve(active, job)
        tries: dict[int, int] = {}
        last = time.monotonic()
        while queue or any(slot.reference is not None for slot in active):
            for slot in active:
                if slot.reference is None and queue:
                    slot.shard = queue.pop()
                    slot.reference, slot.since = slot.actor.run.remote(slot.shard, []), time.monotonic()
            busy = [slot for slot in active if slot.reference is not None]
            done, _ = ray.wait([slot.reference for slot in busy], timeout=1.0)
            if cancelled():
                return
            if not done:
                require_own_node()
            if not done and time.monotonic() - last > self.resources.stall_s:
                for slot in busy:
                    yield self._rescue(slot, job, reason=f"no progress for {self.resources.stall_s:g} s")
                last = time.monotonic()
                continue
            for slot in [slot for slot in busy if slot.reference in done]:
                assert slot.shard is not None
                last = time.monotonic()
                try:
                    result: Any = ray.get(slot.reference)
                except RayTaskError as error:
                    if isinstance(error.cause, DamagedFile):
                        raise error.cause from error
                    if not isinstance(error.cause, DeviceLost):
                        raise PoolError(f"shard {slot.shard} of {job.directory.parent.name}: {error.cause!r}") from error
                    result = self._died(slot, job, tries, queue, str(error.cause))
                except (ActorDiedError, ActorUnavailableError) as error:
                    result = self._died(slot, job, tries, queue, str(error).splitlines()[0])
                slot.reference = None
                if result is not None:
                    yield result

    def _died(self, slot: _Slot, job: ShardJob, tries: dict[int, int], queue: list[int], why: str) -> ShardDone | None:
        """One more chance for the whole shard (a node may simply have gone), then the search for the row."""
        assert slot.shard is not None
        tries[slot.shard] = tries.get(slot.shard, 0) + 1
        if tries[slot.shard] < 2:
            self._replace(slot, job)
            queue.append(slot.shard)
            return None
        return self._rescue(slot, job, reason=why)

    def _rescue(self, slot: _Slot, job: ShardJob, *, reason: str) -> ShardDone:
        """Finds the rows of a shard that end or stall their process, quarantines them, computes the rest."""
        assert slot.shard is not None
        self._replace(slot, job)
        cells = ShardRunner(job).cells(slot.shard)
        culprits = self._bisect(slot, job, cells, (0, cells.num_rows), reason)
        try:
            done = self._answer(slot.actor.run.remote(slot.shard, culprits))
        except (RayActorError, GetTimeoutError) as error:
            raise PoolError(
                f"shard {slot.shard} of {job.directory.parent.name} ends its process although no single row of it does "
                f"({reason}); give the actors more memory or a smaller shard"
            ) from error
        slot.reference = None
        return done

    def _bisect(self, slot: _Slot, job: ShardJob, cells: pa.Table, span: tuple[int, int], reason: str) -> list[RowError]:
        start, stop = span
        if start >= stop:
            return []
        if stop - start == 1 or not self._survives(slot, job, start, stop):
            if stop - start == 1:
                if self._survives(slot, job, start, stop):
                    return []
                row = cells.slice(start, 1)
                assert slot.shard is not None
                return [quarantined(row, slot.shard, RowKilledItsActor(reason), attempts=3)]
            middle = (start + stop) // 2
            left = self._bisect(slot, job, cells, (start, middle), reason)
            return left + self._bisect(slot, job, cells, (middle, stop), reason)
        return []

    def _survives(self, slot: _Slot, job: ShardJob, start: int, stop: int) -> bool:
        try:
            self._answer(slot.actor.probe.remote(slot.shard, start, stop))
        except (RayActorError, GetTimeoutError, RayTaskError) as error:
            if isinstance(error, RayTaskError) and not isinstance(error.cause, DeviceLost):
                return True
            self._replace(slot, job)
            return False
        return True

    def close(self) -> None:
        """Ends the actors."""
        for slot in self.slots:
            ray.kill(slot.actor, no_restart=True)
        self.slots.clear()
