"""An executor that computes in the test's own process: the same shards and records, without the seconds Ray takes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from actors.shard import ShardJob, ShardRunner
from infra.dag.run import Runner
from infra.dag.selection import Selection
from infra.dag.shards import ShardDone
from infra.dag.stage import Places, Resources, RowStage, Stage, Worker
from infra.store.artifacts import Store
from tests.benchmarks.quiet import Quiet


class InlineExecutor:
    """Implements `infra.dag.run.Executor`."""

    def connected(self) -> AbstractContextManager[None]:
        return nullcontext()

    def make_room(self, resources: Resources) -> None:
        pass

    def room_beside(self, resources: Resources, others: Sequence[Resources]) -> bool:
        return False

    def call(self, function: Callable[..., Any], *arguments: Any, poll: Callable[[], None]) -> Any:
        return function(*arguments)

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
        job = ShardJob(
            directory=directory,
            row=stage.row,
            shard_rows=stage.shard_rows,
            worker=worker,
            resources=stage.resources,
            places=places,
        )
        runner = ShardRunner(job)
        for shard in todo:
            yield runner.run(shard)


def computed(target: Stage, store: Store, name: str = "run") -> None:
    """Computes a stage and what it needs."""
    Runner(store, InlineExecutor(), Quiet(), recipe="test", name=name).run(target, Selection())
