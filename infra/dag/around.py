"""What a run is given: who listens to it, and where its work is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from infra.dag.plan import NodePlan
from infra.dag.shards import ShardDone
from infra.dag.stage import Places, Resources, RowStage, Worker
from infra.store.record import Record


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

    def make_room(self, resources: Resources) -> None:
        """Gives back what idle actors hold where a stage's own workers need it."""
        ...

    def room_beside(self, resources: Resources, others: Sequence[Resources]) -> bool:
        """Whether a stage with such resources can have its workers while others have theirs; asked between stages."""
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
        logs: Path,
        cancelled: Callable[[], bool],
    ) -> Iterator[ShardDone]:
        """Runs shards on actors; `logs`: the folder in which each actor keeps a log of its own."""
        ...
