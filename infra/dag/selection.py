"""Which stages of a DAG a command is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from infra.config import ConfigError
from infra.dag.stage import Stage, descendants, topological


@dataclass(frozen=True)
class Selection:
    """Names of nodes: one alone, from one on, up to one, and those to compute again."""

    only: str | None = None
    start: str | None = None
    until: str | None = None
    force: tuple[str, ...] = ()

    def of(self, order: Sequence[Stage]) -> list[Stage]:
        """The chosen stages, parents first; raises ConfigError naming a stage that is not there."""
        by_name = {stage.node: stage for stage in order}
        asked = [("--only", self.only), ("--from", self.start), ("--until", self.until)]
        for flag, name in [*asked, *(("--force", name) for name in self.force)]:
            if name is not None and name not in by_name:
                raise ConfigError(f"{flag} {name}: no such stage in this recipe; its stages are {', '.join(by_name)}")
        chosen = list(order)
        if self.only is not None:
            chosen = [by_name[self.only]]
        if self.start is not None:
            below = descendants(order, by_name[self.start])
            chosen = [stage for stage in chosen if stage.key in below]
        if self.until is not None:
            above = {stage.key for stage in topological(by_name[self.until])}
            chosen = [stage for stage in chosen if stage.key in above]
        self._require_some(chosen)
        return chosen

    def _require_some(self, chosen: Sequence[Stage]) -> None:
        """Raises ConfigError where nothing is selected, or what is to be computed again is not."""
        asked = {"--only": self.only, "--from": self.start, "--until": self.until}
        given = " ".join(f"{flag} {name}" for flag, name in asked.items() if name is not None)
        if not chosen:
            raise ConfigError(f"{given} select no stage together; --from must come before --until, and --only stands alone")
        nodes = [stage.node for stage in chosen]
        for name in self.force:
            if name not in nodes:
                raise ConfigError(f"--force {name}: {given} leave it out; they select {', '.join(nodes)}")

    def forced(self, order: Sequence[Stage]) -> frozenset[str]:
        """Keys of the stages to compute again."""
        return frozenset(stage.key for stage in order if stage.node in self.force)
