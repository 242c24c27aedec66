"""A stage that did not finish, and the commonest reason: too many of its rows were quarantined."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from infra.dag.shards import RowError
from infra.dag.stage import Stage


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


def too_many_errors(stage: Stage, errors: Sequence[RowError], *, total: int, directory: Path) -> StageFailed:
    """The failure of a stage more of whose rows were quarantined than it allows; `directory`: of its artifact."""
    first = errors[0]
    return StageFailed(
        stage.node,
        f"{len(errors)} of {total} rows were quarantined, above max_error_share = {stage.max_error_share:g}; "
        f"row {first.id}: {first.type}: {first.message}; see {directory}/errors*.parquet",
    )
