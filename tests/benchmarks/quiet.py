"""A run that says nothing."""

from __future__ import annotations

from collections.abc import Callable

from infra.dag.plan import NodePlan
from infra.store.record import Record


class Quiet:
    """Implements `infra.dag.run.Progress` by keeping silent."""

    def planned(self, plan: NodePlan) -> None:
        """Nothing."""

    def advanced(self, node: str, done: int, total: int, note: str) -> None:
        """Nothing."""

    def finished(self, node: str, record: Record) -> None:
        """Nothing."""

    def said(self, line: str) -> None:
        """Nothing."""

    def log_to(self, write: Callable[[str], None]) -> None:
        """Nothing."""
