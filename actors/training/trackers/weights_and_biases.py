"""Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from actors.training.trackers.base import Sink
from infra.config import Config


class WandB(Config):
    """Weights & Biases; the key comes from its own environment variables."""

    project: str = Field(min_length=1)
    entity: str | None = None
    """User or team; None for the account's default."""
    offline: bool = False
    """Writes next to the run, to be sent by `wandb sync`."""


class WandBRun(Sink):
    """A run whose id is the training's name. W&B itself drops a step that is not later than its last."""

    def __init__(self, options: WandB, folder: Path, *, run: str, config: dict[str, Any]) -> None:
        import wandb

        self.run = wandb.init(
            project=options.project,
            entity=options.entity,
            id=run,
            name=run,
            resume="allow",
            config=config,
            dir=str(folder),
            mode="offline" if options.offline else "online",
        )
        self.image = wandb.Image

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self.run.log(dict(numbers), step=step)

    def pictures(self, step: int, files: Mapping[str, Path]) -> None:
        self.run.log({name: self.image(str(path)) for name, path in files.items()}, step=step)

    def flush(self) -> None:
        """W&B's own process writes."""

    def close(self) -> None:
        self.run.finish()
