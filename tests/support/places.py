"""A run that has no stages: for models whose weights lie in folders."""

from __future__ import annotations

from pathlib import Path

from infra.dag.stage import Stage


class Nowhere:
    """Knows the weights of no stage."""

    def weights(self, parent: Stage) -> Path:
        """Raises LookupError."""
        raise LookupError(f"stage {parent.node} has not run")
