"""The trainer: optimiser steps on whatever an objective calls its loss. It knows no algorithm and no data.

What a step does depends on the options and the step's number alone. Which examples, which noise and which times belong to
step n follows from seeds of n, never from the position of a data loader or from how many workers there are, so a run may
be killed at any moment and continued by another number of workers on the same curve.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from pydantic import Field

from actors.engines.training import AdamW, Engine, EngineOptions, State, build_engine, load_parameters
from infra.config import Config, ConfigError
from infra.fit import Halt, Session, scratch_folder
from infra.identity import seed_of
from infra.lazy import lazy

if TYPE_CHECKING:
    import torch
    import torch.distributed as dist
    from torch import nn
else:
    torch, dist = lazy("torch"), lazy("torch.distributed")

STATE, CURVE, EXPORT = "state.safetensors", "curve.jsonl", "export"
SHOWN = 8  # names of examples in an error


@dataclass(frozen=True)
class Draw:
    """One example of a batch."""

    index: int
    """Which example of the objective's data."""
    seed: int
    """Of all that is random about it in this step: noise, time."""


@dataclass(frozen=True)
class Losses:
    """What an objective answers for a batch: one loss an example, and statistics, one number an example each."""

    losses: torch.Tensor
    metrics: dict[str, torch.Tensor]


class Objective(Protocol):
    """An algorithm with its model and data. Picklable before `prepare`."""

    def prepare(self, device: torch.device) -> nn.Module:
        """Loads model and data; returns the module whose parameters with a gradient are trained."""
        ...

    @property
    def size(self) -> int:
        """Number of examples."""
        ...

    def name_of(self, index: int) -> str:
        """What an error calls an example: its row's id."""
        ...

    def losses(self, model: nn.Module, draws: list[Draw]) -> Losses:
        """The losses of these examples; `model` is the prepared module as the engine wrapped it."""
        ...

    def export(self, parameters: dict[str, torch.Tensor], folder: Path) -> None:
        """Writes the trained model from its trained parameters, whole and by name; called on rank 0 after the last step."""
        ...


class TrainerOptions(Config):
    """How an objective is trained."""

    steps: int = Field(150, ge=1)
    """Optimiser steps."""
    batch: int = Field(32, ge=1)
    """Examples a step, over all workers."""
    learning_rate: float = Field(2e-4, gt=0)
    """The highest."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """What follows the warm-up: as it is, or falling to `floor` of the highest rate."""
    warm_up: int = Field(10, ge=0)
    """Steps of linear rise to the highest rate."""
    floor: float = Field(0.05, ge=0, le=1)
    """Share of the highest rate at the end of a falling schedule."""
    clip: float = Field(1.0, gt=0)
    """Largest norm of the gradient."""
    optimizer: AdamW = AdamW()
    engine: EngineOptions = EngineOptions()
    seed: int = Field(0, ge=0)
    """Of the order of examples, and of noise and times."""
    micro_batch: int = Field(64, ge=1, exclude=True)
    """Most examples in one backward pass of one worker: memory, not meaning."""
    checkpoint_every: int = Field(50, ge=1, exclude=True)
    """Steps between two places to continue from."""

    def learning_rate_at(self, step: int) -> float:
        """The rate of the update number `step`, counted from 0."""
        if step < self.warm_up:
            return self.learning_rate * (step + 1) / self.warm_up
        done = (step - self.warm_up) / max(self.steps - self.warm_up, 1)
        fall = {"constant": 0.0, "linear": done, "cosine": (1 - math.cos(math.pi * done)) / 2}[self.schedule]
        return self.learning_rate * (1 - (1 - self.floor) * fall)

    def draws(self, step: int, *, size: int) -> list[Draw]:
        """The batch of a step: epochs are shuffled one after the other, each by its own seed."""
        positions = range(step * self.batch, (step + 1) * self.batch)
        orders = {e: _order(self.seed, e, size) for e in {position // size for position in positions}}
        return [
            Draw(index=int(orders[position // size][position % size]), seed=seed_of(self.seed, "draw", position))
            for position in positions
        ]


@dataclass(frozen=True)
class Training:
    """An objective and how to train it: all that a worker is sent."""

    objective: Objective
    options: TrainerOptions


def train(training: Training, session: Session) -> None:
    """The loop of a worker: from the last checkpoint to the last step, then the export. Halts where a loss is no number."""
    options, objective = training.options, training.objective
    curve = read_curve(session.checkpoint())
    if len(curve) >= options.steps:
        return
    device = _device()
    engine = _start(training, session, device)
    for step in range(len(curve), options.steps):
        torch.manual_seed(seed_of(options.seed, "dropout", step, session.rank))
        draws = options.draws(step, size=objective.size)
        metrics = _gradients(objective, engine, options, session, draws=draws, step=step)
        rate = options.learning_rate_at(step)
        norm = engine.step(rate)
        if not math.isfinite(norm):
            raise Halt(_complaint(step, "gradient", [objective.name_of(draw.index) for draw in draws]))
        curve.append({"step": step + 1, **metrics, "gradient_norm": norm, "learning_rate": rate})
        session.report(curve[-1])
        if (step + 1) % options.checkpoint_every == 0 or step + 1 == options.steps:
            _commit(training, engine, session, curve)


def read_curve(checkpoint: Path | None) -> list[dict[str, Any]]:
    """Every step up to a checkpoint; none without one."""
    if checkpoint is None:
        return []
    return [json.loads(line) for line in (checkpoint / CURVE).read_text().splitlines()]


def _start(training: Training, session: Session, device: torch.device) -> Engine:
    """Model and engine as the last checkpoint left them."""
    from safetensors.torch import load_file

    options = training.options
    if options.batch < session.world:
        raise ConfigError(f"batch = {options.batch} is less than {session.world} workers; raise it or use fewer workers")
    if device.type == "cpu":
        torch.set_num_threads(1)
    torch.manual_seed(seed_of(options.seed, "model"))
    model = training.objective.prepare(device)
    if training.objective.size == 0:
        raise ConfigError("training has no examples; are all labels ties?")
    checkpoint = session.checkpoint()
    state: State | None = None if checkpoint is None else load_file(checkpoint / STATE)
    if state is not None:
        load_parameters(model, state)
    engine = build_engine(
        model,
        options=options.engine,
        optimizer=options.optimizer,
        clip=options.clip,
        passes=_passes(options, session.world),
        device=device,
    )
    if state is not None:
        engine.restore(state)
    return engine


def _gradients(
    objective: Objective,
    engine: Engine,
    options: TrainerOptions,
    session: Session,
    *,
    draws: list[Draw],
    step: int,
) -> dict[str, float]:
    """Forward and backward over this rank's share; the batch's mean loss and metrics, equal on all ranks."""
    mine = np.arange(session.rank, options.batch, session.world)
    sums: dict[str, torch.Tensor] = {}
    bad: list[str] = []
    for part in np.array_split(mine, _passes(options, session.world)):
        chosen = [draws[position] for position in part]
        found = objective.losses(engine.model, chosen)
        # The engine averages over ranks; this makes the whole the mean over the batch, whatever each rank's share.
        engine.backward(found.losses.sum() * (session.world / options.batch))
        statistics = {"loss": found.losses, **found.metrics}
        for name, values in statistics.items():
            sums[name] = sums.get(name, 0.0) + values.detach().double().sum()
        finite = torch.isfinite(found.losses.detach())
        bad += [objective.name_of(draw.index) for draw, fine in zip(chosen, finite.tolist(), strict=True) if not fine]
    total = torch.stack(list(sums.values()))
    if session.world > 1:
        dist.all_reduce(total)
    means = dict(zip(sums, (total / options.batch).tolist(), strict=True))
    if not math.isfinite(means["loss"]):
        raise Halt(_complaint(step, "loss", _together(bad, session.world)))
    return means


def _together(names: list[str], world: int) -> list[str]:
    if world == 1:
        return names
    found: list[Any] = [None] * world
    dist.all_gather_object(found, names)
    return [name for part in found for name in part]


def _complaint(step: int, what: str, names: list[str]) -> str:
    shown = ", ".join(sorted(names)[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    return (
        f"the {what} of step {step + 1} is not a finite number, on {shown}; look at these rows, "
        "lower the learning rate, or clip harder. Nothing after the last checkpoint was kept"
    )


def _commit(training: Training, engine: Engine, session: Session, curve: list[dict[str, Any]]) -> None:
    """Everything the next step depends on, the whole curve, and after the last step the export."""
    from safetensors.torch import save_file

    state = engine.state()
    if state is None:
        session.commit(None)
        return
    with scratch_folder(session.folder) as folder:
        save_file(state, folder / STATE)
        (folder / CURVE).write_text("".join(json.dumps(row) + "\n" for row in curve))
        if len(curve) == training.options.steps:
            (folder / EXPORT).mkdir()
            parameters = {key.removeprefix("param/"): value for key, value in state.items() if key.startswith("param/")}
            training.objective.export(parameters, folder / EXPORT)
        session.commit(folder)


def _passes(options: TrainerOptions, world: int) -> int:
    """Backward passes a step, the same on every rank."""
    return max(1, min(math.ceil(math.ceil(options.batch / world) / options.micro_batch), options.batch // world))


def _order(seed: int, epoch: int, size: int) -> np.ndarray:
    return np.random.default_rng(seed_of(seed, "epoch", epoch)).permutation(size)


def _device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")
