"""What the trainer asks of an algorithm: a model, examples, their losses, and an export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from actors.training.draws import Draw
from actors.training.engines.engine import Cast, uncast
from actors.training.launch import Session
from infra.config import ConfigError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn


@dataclass(frozen=True)
class Losses:
    """An objective's result for a batch: one loss per example, and metrics with one number per example each."""

    losses: torch.Tensor
    metrics: Mapping[str, torch.Tensor | None]
    """None (or no entry) if these examples lack the number; the mean is over the examples that have one."""


class Objective(Protocol):
    """An algorithm with its model and data. Picklable before `prepare`."""

    def describe(self) -> dict[str, Any]:
        """JSON data of everything that decides the losses, asked before `prepare`; a run goes on under the same only."""
        ...

    def prepare(self, device: torch.device, *, cast: Cast = uncast) -> nn.Module:
        """Loads model and data; returns the module whose parameters with a gradient are trained.

        `cast`: the engine's, which wraps the returned module; other models that must compute as it does take it, too.
        """
        ...

    @property
    def size(self) -> int:
        """Number of examples."""
        ...

    @property
    def groups(self) -> Sequence[int] | np.ndarray | None:
        """The group of each example; a batch never mixes groups, for instance shapes. None: a single group."""
        ...

    def name_of(self, index: int) -> str:
        """The id of an example's row, for error messages."""
        ...

    def prefetch(self, draws: list[Draw]) -> None:
        """Reads what these examples need, while the step before them computes: called once per step, on another thread.

        `draws` are this rank's of the coming step. May do nothing.
        """
        ...

    @property
    def needs_means(self) -> bool:
        """Whether `losses` depends on means over the whole batch."""
        ...

    def statistics(self, model: nn.Module, draws: list[Draw]) -> dict[str, torch.Tensor]:
        """Values with one number per example, whose means over the whole batch `losses` needs; without gradient.

        Called on every rank for every part of the batch before the first `losses`, where `needs_means`; the same random
        numbers (dropout) follow in `losses`.
        """
        ...

    def losses(self, model: nn.Module, draws: list[Draw], *, means: Mapping[str, float]) -> Losses:
        """The losses of these examples; `model` is the prepared module as the engine wrapped it.

        `means`: of `statistics` over the whole batch; empty where the objective needs none.
        """
        ...

    def preview(self, model: nn.Module, *, step: int, folder: Path | None) -> None:
        """Shows what the model does after `step` updates: NAME.png files in `folder`, which is None except on rank 0.

        Called on all ranks, for under ZeRO 3 all of them are needed to run the model. May do nothing.
        """
        ...

    def export(self, parameters: dict[str, torch.Tensor], folder: Path) -> None:
        """Writes the trained model from its trained parameters, whole and by name; called on rank 0 after the last step."""
        ...


@runtime_checkable
class Collecting(Objective, Protocol):
    """An objective that makes its examples itself: every so many steps with the model as it then is (online training).

    `size` is the number of examples of one round, the same in all rounds, and known once the objective is prepared.
    """

    @property
    def round(self) -> int:
        """Optimiser steps that one collection of examples serves."""
        ...

    def collect(self, model: nn.Module, number: int, session: Session) -> dict[str, float]:
        """Makes the examples of round `number`, counted from 0, with the model as it is; without gradient.

        Called by all ranks before the first step of the round, and again for a round that is replayed after a kill. Draws
        its random numbers from seeds of its own. Returns what is logged with the round's first step, equal on all ranks.
        """
        ...

    def ended(self, curve: Sequence[Mapping[str, Any]]) -> str | None:
        """Why no further round is made, from the curve at a round's end; None to go on. A function of the curve alone."""
        ...


def require_rounds(objective: Collecting, *, steps: int, batch: int, checkpoint_every: int) -> None:
    """Raises ConfigError where a run could end or be saved within a round, or where a batch would span two rounds.

    The objective is prepared.
    """
    length, size = objective.round, objective.size
    for name, value in (("steps", steps), ("checkpoint_every", checkpoint_every)):
        if value % length:
            raise ConfigError(
                f"{name} = {value} is no multiple of the {length} steps per round; examples belong to the parameters that "
                f"collected them, so a run is saved between rounds only: give {value - value % length + length}"
            )
    if size % batch:
        raise ConfigError(
            f"a round's {size} examples are no multiple of batch = {batch}, so a batch would span two rounds; change either"
        )
    if length * batch % size:
        raise ConfigError(
            f"{length} steps per round of batch = {batch} are {length * batch / size:.2f} passes over a round's {size} "
            f"examples; make them whole passes: a multiple of {size // batch} steps per round"
        )
    if objective.groups is not None and len(set(objective.groups)) > 1:
        raise ConfigError("the examples of a round have several shapes; collect examples of one shape")
