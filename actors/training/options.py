"""How an objective is trained: steps, batch, learning rate, average, engine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from actors.training.draws import Batches, Draw
from actors.training.engines.engine import AdamW, AnyOptimizer, EngineOptions
from infra.config import Config, ConfigError

if TYPE_CHECKING:
    import numpy as np


class TrainerOptions(Config):
    """How an objective is trained."""

    steps: int = Field(150, ge=1)
    """Optimiser steps."""
    epochs: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Passes over the examples, which then decide the steps: the schedule is stretched or shortened accordingly."""
    batch: int = Field(32, ge=1)
    """Examples per step, over all workers."""
    learning_rate: float = Field(2e-4, gt=0)
    """Highest learning rate."""
    schedule: Literal["constant", "linear", "cosine", "polynomial"] = "constant"
    """Course of the rate after the warm-up: constant, or falling to `floor` times the highest rate."""
    power: float = Field(2.0, gt=0)
    """Exponent of the polynomial schedule: the rate falls as (1 - share of the steps done)^power."""
    warm_up: int = Field(10, ge=0)
    """Steps in which the rate rises linearly to the highest rate."""
    floor: float = Field(0.05, ge=0, le=1)
    """Share of the highest rate at the end of a falling schedule."""
    clip: float = Field(1.0, gt=0)
    """Largest norm of the gradient."""
    ema: float | None = Field(None, gt=0, lt=1)
    """Decay per step of an exponential moving average of the parameters, which is then exported; None: no average."""
    optimizer: AnyOptimizer = AdamW()
    engine: EngineOptions = EngineOptions()
    seed: int = Field(0, ge=0)
    """Seed of the order of examples, of noise and of times."""
    micro_batch: int = Field(64, ge=1, exclude=True)
    """Most examples in one backward pass of one worker (gradients accumulate). It changes memory, not results."""
    checkpoint_every: int = Field(50, ge=1, exclude=True)
    """Steps between two checkpoints."""
    preview_every: int = Field(0, ge=0, exclude=True)
    """Steps between two previews; 0: no previews."""

    @model_validator(mode="after")
    def _possible(self) -> TrainerOptions:
        if self.optimizer.kind == "adafactor" and self.engine.kind == "deepspeed":
            raise ConfigError(
                "optimizer = adafactor needs whole parameters, and DeepSpeed divides them into flat pieces; "
                "set engine.kind to torch, or optimizer to adamw"
            )
        return self

    def require_workers(self, workers: int) -> None:
        """Raises ConfigError where a step has fewer examples than there are workers: each needs one at least."""
        if self.batch < workers:
            raise ConfigError(
                f"batch = {self.batch} is less than the {workers} training workers, which need an example each; raise the "
                "batch, or use fewer workers"
            )

    def resolved(self, examples: int) -> TrainerOptions:
        """With the steps that `epochs` over so many examples are; the share of the warm-up stays."""
        if self.epochs is None:
            return self
        steps = max(1, round(self.epochs * examples / self.batch))
        return self.model_copy(update={"steps": steps, "warm_up": round(self.warm_up / self.steps * steps), "epochs": None})

    def epochs_of(self, examples: int) -> float:
        """Passes over so many examples."""
        return self.epochs if self.epochs is not None else self.steps * self.batch / max(examples, 1)

    def learning_rate_at(self, step: int) -> float:
        """The rate of the update number `step`, counted from 0."""
        if step < self.warm_up:
            return self.learning_rate * (step + 1) / self.warm_up
        done = (step - self.warm_up) / max(self.steps - self.warm_up, 1)
        fall = {
            "constant": 0.0,
            "linear": done,
            "cosine": (1 - math.cos(math.pi * done)) / 2,
            "polynomial": 1 - (1 - done) ** self.power,
        }[self.schedule]
        return self.learning_rate * (1 - (1 - self.floor) * fall)

    def batches(self, *, size: int, groups: Sequence[int] | np.ndarray | None = None) -> Batches:
        """The batch of every step over `size` examples, each of its group; None: one group of all."""
        return Batches(self.seed, batch=self.batch, size=size, groups=groups)

    def draws(self, step: int, *, size: int) -> list[Draw]:
        """The batch of one step over `size` examples of one group."""
        return self.batches(size=size).draws(step)

    def passes(self, *, world: int) -> int:
        """Backward passes per step, the same on all `world` workers; each pass has at least one example."""
        most = math.ceil(self.batch / world)
        return max(1, min(math.ceil(most / self.micro_batch), self.batch // world))
