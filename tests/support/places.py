"""Where the weights of stages are, without a store: for what is opened outside a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from infra.dag.stage import Stage


@dataclass(frozen=True)
class Folders:
    """Folders by the stages' keys; implements `infra.dag.stage.Places`."""

    known: dict[str, Path] = field(default_factory=dict)

    def weights(self, parent: Stage) -> Path:
        if parent.key not in self.known:
            raise LookupError(f"{parent.node} has not run")
        return self.known[parent.key]


NOWHERE = Folders()
