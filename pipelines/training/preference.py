"""A preference loss of a policy as an objective of the trainer: one forward pass for both members of every pair.

Winner and loser share noise and time. The reference's part comes from the disabled adapter, from a frozen copy, or from
errors that a stage computed before: then no reference is in memory.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from actors.training.draws import Draw
from actors.training.engines.engine import Cast, uncast
from actors.training.objective import Losses
from infra.config import Config, ConfigError
from infra.lazy import lazy
from pipelines.algorithms.diffusion.path import PathSample, per_sample_error
from pipelines.algorithms.preference.methods import AnyMethod
from pipelines.algorithms.preference.pairwise import Member, PairBatch
from pipelines.models.adapter import Full, LoRA, Start
from pipelines.models.families.base import Family
from pipelines.models.policy import Policy, ReferenceModel
from pipelines.models.quantised import BasePrecision
from pipelines.training.data import Batch, OpenTrainingData, TrainingData, cached_errors
from pipelines.training.noise import NoiseDraws
from pipelines.training.previews import PreviewSpec, draw_previews

if TYPE_CHECKING:
    import torch
    from torch import nn
else:
    torch = lazy("torch")

ReferenceKind = Literal["none", "adapter", "copy", "cached"]


@dataclass(frozen=True)
class PolicySpec:
    """How a worker loads the policy."""

    family: Family
    adapter: LoRA | Full | None
    """What is trained; None where the policy is only measured."""
    start: Start | None = None
    checkpointing: bool = False
    dtype: Literal["float32", "bfloat16"] = "float32"
    guidance: float = 1.0
    """What a guidance-distilled denoiser is told."""
    compiled: bool = False
    """Policy and reference by torch.compile: operations fused, the same numbers but for rounding."""
    base_precision: BasePrecision = "unquantised"
    """Of the frozen weights under a LoRA."""

    def load(self, device: torch.device, *, reference: ReferenceModel, cast: Cast = uncast) -> Policy:
        """The policy on a device. ConfigError where it is to be compiled and there is no compiler."""
        compiler = os.environ.get("CXX", "g++")
        if self.compiled and shutil.which(compiler) is None:
            raise ConfigError(
                f"compiled = True, but there is no C++ compiler {compiler!r}; install one, set CXX, or leave it"
            )
        policy = Policy(
            self.family,
            adapter=self.adapter,
            start=self.start,
            base_precision=self.base_precision,
            reference=reference,
            checkpointing=self.checkpointing,
            dtype=getattr(torch, self.dtype),
            device=device,
            cast=cast,
        )
        for model in (policy.model, policy.frozen) if self.compiled else ():
            if model is not None:
                model.compile()
        return policy


def require_prediction(method: AnyMethod, policy: Family) -> None:
    """Raises ConfigError where a method is for generators that predict something else than this one."""
    prediction = policy.prediction()
    if prediction not in method.predictions:
        kinds = ", ".join(sorted(method.predictions))
        raise ConfigError(
            f"tune: {method.method} trains generators that predict {kinds}; {policy.folder} predicts {prediction}; use "
            f"{'flow_dpo' if prediction == 'flow' else 'diffusion_dpo'}"
        )


@dataclass
class PreferenceObjective:
    """Picklable; `prepare` loads the policy and opens the data."""

    data: TrainingData
    policy: PolicySpec
    method: Config
    noise: NoiseDraws
    reference: ReferenceKind
    described: dict[str, Any]
    errors: Path | None = None
    """Parquet of (example, draw, winner, loser) where the reference is cached."""
    previews: PreviewSpec | None = None
    comfyui: bool = False
    _ready: Any = field(default=None, init=False, repr=False)

    def describe(self) -> dict[str, Any]:
        """The tuning's identity, as the artifact's record has it."""
        return self.described

    def prepare(self, device: torch.device, *, cast: Cast = uncast) -> nn.Module:
        """Loads the policy and the examples."""
        policy = self.policy.load(device, reference="none" if self.reference == "cached" else self.reference, cast=cast)
        data = self.data.open()
        known = None if self.errors is None else cached_errors(self.errors, data, draws=self.noise.draws or 1)
        self._ready = Ready(policy, data, known, device)
        return policy.model

    @property
    def size(self) -> int:
        """Number of examples."""
        return len(self._ready.data)

    @property
    def groups(self) -> np.ndarray | None:
        """Group of each example, int[examples]: batches hold examples of one shape."""
        return self._ready.data.groups

    def name_of(self, index: int) -> str:
        """Id of the pair."""
        return self._ready.data.name_of(index)

    def prefetch(self, draws: list[Draw]) -> None:
        """Reads what these examples need."""
        self._ready.data.warm([draw.index for draw in draws])

    @property
    def _method(self) -> AnyMethod:
        return self.method  # pyright: ignore[reportReturnType]

    @property
    def needs_means(self) -> bool:
        """Whether the method needs means over the whole batch, which `statistics` gives."""
        return self._method.needs_statistics

    def statistics(self, model: nn.Module, draws: list[Draw]) -> dict[str, torch.Tensor]:
        """What the method wants to know of a batch before its losses, as scalars by name."""
        with torch.no_grad():
            return self._method.statistics(self.pairs(model, draws))

    def losses(self, model: nn.Module, draws: list[Draw], *, means: Mapping[str, float]) -> Losses:
        """The method's loss of each pair, and what is logged of it."""
        pairs = self.pairs(model, draws)
        found = self._method.losses(pairs, means=means)
        metrics: dict[str, torch.Tensor | None] = dict(found.metrics)
        if pairs.winner.reference is not None and pairs.loser.reference is not None:
            sides = ((pairs.winner.prediction, pairs.winner.reference), (pairs.loser.prediction, pairs.loser.reference))
            won, lost = (per_sample_error(now.detach(), target=then) for now, then in sides)
            metrics["drift"] = (won + lost) / 2
        return Losses(losses=found.losses, metrics=metrics)

    def pairs(self, model: nn.Module, draws: list[Draw]) -> PairBatch:
        """Both members at their shared noise and time, with the policy's and the reference's answers."""
        ready: Ready = self._ready
        batch, sample = ready.noised(draws, noise=self.noise)
        condition = batch.both
        prediction = self._predict(model, sample, condition)
        answers, errors = None, None
        if self.reference in ("adapter", "copy"):
            answers = ready.policy.reference_predict(model, sample, condition=condition, guidance=self.policy.guidance)
            errors = per_sample_error(answers, target=sample.target)
        elif self.reference == "cached":
            errors = self._cached(draws, device=ready.device)
        winner, loser = _members(prediction, sample.target, answers, errors)
        tie = batch.column("tie") > 0
        given = {
            name: batch.column(name).to(ready.device) for name in ("gap", "probability", "reward_winner", "reward_loser")
        }
        return PairBatch(winner=winner, loser=loser, t=sample.t[: len(draws)].float(), tie=tie.to(ready.device), **given)

    def _predict(self, model: nn.Module, sample: PathSample, condition: dict[str, torch.Tensor]) -> torch.Tensor:
        """Answers to both members in one pass; losers without gradient where the method learns nothing from them."""
        policy, guidance = self._ready.policy, self.policy.guidance
        if self._method.trains_losers:
            return policy.predict(model, sample, condition=condition, guidance=guidance)
        halves = zip(*(value.chunk(2) for value in (sample.x_t, sample.target, sample.t)), strict=True)
        winners, losers = (PathSample(*half) for half in halves)
        split = {name: value.chunk(2) for name, value in condition.items()}
        of_winners, of_losers = ({name: value[side] for name, value in split.items()} for side in (0, 1))
        won = policy.predict(model, winners, condition=of_winners, guidance=guidance)
        with torch.no_grad():
            lost = policy.predict(model, losers, condition=of_losers, guidance=guidance)
        return torch.cat([won, lost])

    def _cached(self, draws: list[Draw], *, device: torch.device) -> torch.Tensor:
        """The reference's errors float[2b], winners first."""
        index, numbers = [draw.index for draw in draws], [self.noise.number(draw) for draw in draws]
        found = self._ready.known[index, numbers]
        if np.isnan(found).any():
            place = int(np.flatnonzero(np.isnan(found).any(axis=1))[0])
            raise ConfigError(
                f"there is no cached reference error of example {self.name_of(index[place])} and draw {numbers[place]}; "
                "run reference_errors again"
            )
        return torch.from_numpy(found.T.reshape(-1).copy()).to(device)

    def preview(self, model: nn.Module, *, step: int, folder: Path | None) -> None:
        """One picture a text, its first frame where it is a clip."""
        if self.previews is not None:
            ready = self._ready
            draw_previews(self.previews, ready.policy, model, texts=ready.data.latents, folder=folder)

    def export(self, parameters: dict[str, torch.Tensor], folder: Path) -> None:
        """Writes the trained parameters as a LoRA or a whole pipeline; see `Policy.export`."""
        self._ready.policy.export(parameters, folder, comfyui=self.comfyui)


@dataclass(frozen=True)
class Ready:
    """A prepared objective's policy and data."""

    policy: Policy
    data: OpenTrainingData
    known: np.ndarray | None
    """Cached errors of the reference, float32[examples, draws, 2]: of winner and loser."""
    device: torch.device

    def noised(self, draws: list[Draw], *, noise: NoiseDraws) -> tuple[Batch, PathSample]:
        """The batch, and both members at one noise and time, winners first."""
        index = [draw.index for draw in draws]
        seeds = [noise.seed_of(draw, example=self.data.name_of(draw.index)) for draw in draws]
        batch = noise.batch(self.data, index, seeds, device=self.device)
        return batch, noise.noised(batch, seeds, loaded=self.policy.loaded)


def _members(
    prediction: torch.Tensor, target: torch.Tensor, answers: torch.Tensor | None, errors: torch.Tensor | None
) -> tuple[Member, Member]:
    """Winner and loser of stacked tensors."""
    error = per_sample_error(prediction, target=target)
    absent = (None, None)
    reference = absent if answers is None else answers.chunk(2)
    reference_error = absent if errors is None else errors.chunk(2)
    sides = zip(prediction.chunk(2), target.chunk(2), error.chunk(2), reference, reference_error, strict=True)
    winner, loser = (Member(*side) for side in sides)
    return winner, loser
