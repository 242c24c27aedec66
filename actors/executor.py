"""Ray as a run's executor: connected at the first stage that needs work, actors kept from stage to stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any

from actors.shard import ShardJob
from infra.cluster import connection as cluster
from infra.dag.shards import ShardDone
from infra.dag.stage import Places, Resources, RowStage, Worker


class RayExecutor:
    """Implements `infra.dag.run.Executor`; use it as a context manager, so that actors and Ray end with the run."""

    def __init__(self, address: str = cluster.LOCAL, *, workers: int = 2, resources: Sequence[Resources] = ()) -> None:
        self.address = address
        self.resources = list(resources) or [Resources(workers=workers)]
        """What the stages of the run ask for: a local Ray is made large enough for the largest of them."""
        self._stack = ExitStack()
        self._connected = False
        self._pools: dict[str, Any] = {}

    def __enter__(self) -> RayExecutor:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for pool in self._pools.values():
            pool.close()
        self._stack.close()

    def connected(self) -> AbstractContextManager[None]:
        """Connects once; everything cached costs no Ray at all."""
        if not self._connected:
            self._stack.enter_context(cluster.connected(self.address, resources=self.resources))
            self._connected = True
        return nullcontext()

    def make_room(self, resources: Resources) -> None:
        """Ends the actors that hold what a stage with workers of its own needs: idle pools would make it wait for ever."""
        free = cluster.free_resources()
        for kind, each in (("GPU", resources.gpus), ("CPU", resources.cpus)):
            if resources.workers * each > free.get(kind, 0.0):
                for name, pool in list(self._pools.items()):
                    if kind == "CPU" or pool.resources.gpus:
                        self._pools.pop(name).close()

    def room_beside(self, resources: Resources, others: Sequence[Resources]) -> bool:
        """Whether the cluster is large enough for both, and what nobody holds is enough for this one; ends idle actors."""
        if not self._connected:
            return True  # nothing has needed the cluster yet: all so far were hits
        there = cluster.all_resources()
        asked = {"GPU": [one.workers * one.gpus for one in (resources, *others)]}
        asked["CPU"] = [one.workers * one.cpus for one in (resources, *others)]
        if any(sum(each) > there.get(kind, 0.0) for kind, each in asked.items()):
            return False  # and no idle actor is ended for nothing
        self.make_room(resources)
        free = cluster.free_resources()
        return all(own <= free.get(kind, 0.0) for kind, (own, *_) in asked.items())

    def call(self, function: Callable[..., Any], *arguments: Any, poll: Callable[[], None]) -> Any:
        """See `infra.cluster.connection.call`."""
        return cluster.call(function, *arguments, poll=poll)

    def shards(
        self,
        stage: RowStage,
        directory: Path,
        worker: Worker,
        todo: Sequence[int],
        *,
        places: Places,
        logs: Path,
        cancelled: Callable[[], bool],
    ) -> Iterator[ShardDone]:
        """Shards on a pool of actors; stages with the same resources share one."""
        from actors.pool import Pool

        pool = self._pools.setdefault(stage.resources.model_dump_json(), Pool(stage.resources))
        pool.logs = logs
        job = ShardJob(
            directory=directory,
            row=stage.row,
            shard_rows=stage.shard_rows,
            worker=worker,
            resources=stage.resources,
            places=places,
        )
        return pool.run(job, todo, cancelled=cancelled)
