"""A trained latent reward model as what scores the candidates of a rollout, and as what guides a velocity."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from infra.config import Config, ConfigError
from infra.dag.stage import Places
from infra.lazy import lazy
from pipelines.algorithms.diffusion.guidance import RewardGuidance, dimension_weights, weighted
from pipelines.algorithms.diffusion.path import PURE_NOISE
from pipelines.models.families.base import Family
from pipelines.models.rewards.reward import RewardModel
from pipelines.models.rollout import Candidates
from pipelines.models.weights import Weights

if TYPE_CHECKING:
    import torch

    from pipelines.models.families.steps import SamplingSteps
    from pipelines.models.rewards.network import RewardNetwork
else:
    torch = lazy("torch")

Target = Literal["predicted", "generator"]
"""What a reward that compares with a velocity is told at a candidate: "predicted", the velocity from the x_0 that the step
predicted, which costs nothing; "generator", what the generator itself predicts there, which is one more forward per
candidate."""


class TrainedLatentReward(Config):
    """What stage `reward` trained, and how its dimensions become one number."""

    weights: Weights
    """What stage `reward` wrote: `Made(stage=...)`, or a folder."""
    model: RewardModel
    """The reward model that was trained."""
    backbone: Family
    """The generator that it was trained on."""
    dimension_weights: dict[str, float] = Field(default_factory=dict)
    """Weight of each dimension, not normalised; dimensions that are not named have weight 0; none named: their mean."""
    target: Target = "predicted"
    """For reward models that compare with a velocity (score enhancement); others ignore it."""

    @model_validator(mode="after")
    def _known(self) -> TrainedLatentReward:
        dimension_weights(self.dimension_weights, dimensions=self.model.dimensions)
        return self

    def refuse_other(self, family: Family) -> None:
        """Raises ConfigError for a generator of another architecture: neither latents nor texts would be its own."""
        if type(family) is not type(self.backbone):
            raise ConfigError(
                f"a reward model on a {self.backbone.name} generator cannot read latents of a {family.name} generator; "
                "train one on that family"
            )

    def open(self, family: Family, device: str, places: Places) -> OpenLatentReward:
        """The network on a device; raises ConfigError for a generator with another VAE. `family` is placed."""
        self.refuse_other(family)
        backbone = self.backbone.placed(places)
        if (theirs := backbone.vae_identity()) != (ours := family.vae_identity()):
            raise ConfigError(
                f"the reward model reads latents of the VAE of {backbone.folder} ({theirs}), the generator in "
                f"{family.folder} has another ({ours}); train a reward model on a generator with this VAE"
            )
        network = self.model.loaded(self.weights.folder(places), backbone=backbone, device=device)
        return OpenLatentReward(network, weights=self._weights, target=self.target)

    @property
    def _weights(self) -> tuple[float, ...]:
        return dimension_weights(self.dimension_weights, dimensions=self.model.dimensions)


class OpenLatentReward:
    """A latent reward model in memory, ready for the rollouts of one generator."""

    def __init__(self, network: RewardNetwork, *, weights: tuple[float, ...], target: Target) -> None:
        self.network, self.weights, self.target = network, weights, target

    def on(self, grid: SamplingSteps) -> LatentScores:
        """The same for the prompts of a rollout."""
        return LatentScores(self, grid)


class LatentScores:
    """A `CandidateReward` of the prompts of a rollout, and its gradient with respect to the latents."""

    def __init__(self, reward: OpenLatentReward, grid: SamplingSteps) -> None:
        self.reward, self.grid = reward, grid

    def __call__(self, candidates: Candidates) -> torch.Tensor:
        """float[rows], the weighted sum of the dimensions at each candidate's own time."""
        target = candidates.target
        if self.reward.network.reads_target and self.reward.target == "generator" and bool((candidates.t > 0).all()):
            told = self.grid.path.timesteps(candidates.t)
            target = self.grid.at(candidates.x, told, prompts=candidates.prompts)
        return self.scores(candidates.x, candidates.t, prompts=candidates.prompts, target=target)

    def scores(
        self, x: torch.Tensor, t: torch.Tensor, *, prompts: torch.Tensor, target: torch.Tensor | None
    ) -> torch.Tensor:
        """float[rows] of latents at times t; `target` is what the generator predicts there."""
        condition = {name: value[prompts] for name, value in self.grid.condition.items()}
        told = {"target": target} if self.reward.network.reads_target else {}
        found = self.reward.network(x, t=t, condition=condition, **told)
        return weighted(found, weights=self.reward.weights)

    def gradient(
        self, x: torch.Tensor, t: torch.Tensor, *, prompts: torch.Tensor, target: torch.Tensor | None
    ) -> torch.Tensor:
        """The gradient of each row's score with respect to its own latent."""
        with torch.enable_grad():
            asked = x.detach().requires_grad_(True)
            scores = self.scores(asked, t, prompts=prompts, target=target)
            return torch.autograd.grad(scores.sum(), asked)[0].float()


class RewardGuided:
    """A grid's predictions, guided by a reward (Flow-NRG) after classifier-free guidance; a `Prediction` of rollouts."""

    def __init__(self, grid: SamplingSteps, scores: LatentScores, guidance: RewardGuidance) -> None:
        if grid.path.prediction != "flow":
            raise ConfigError(f"reward guidance is for flows, this generator predicts {grid.path.prediction}; use a search")
        self.grid, self.scores, self.guidance = grid, scores, guidance
        self.clamped: set[int] = set()
        """Steps at which t / (1 - t) was limited, or the time was 1."""

    def __call__(self, x: torch.Tensor, index: int, *, prompts: torch.Tensor) -> torch.Tensor:
        velocity = self.grid.predict(x, index, prompts=prompts)
        t = self.grid.times[index].expand(len(x))
        if not self.guidance.scale or bool((t > PURE_NOISE).any()):
            gradient = torch.zeros_like(x)
        else:
            gradient = self.scores.gradient(x, t, prompts=prompts, target=velocity)
        guided = self.guidance.velocity(velocity, gradient=gradient, t=t)
        if bool(guided.clamped.any()):
            self.clamped.add(index)
        return guided.velocity

    def log_clamped(self, name: str) -> None:
        """Says at how many steps the guidance was weaker than its formula."""
        if self.guidance.scale and self.clamped:
            logging.getLogger(__name__).info(
                "%s: t / (1 - t) was limited to %g at %d of %d steps",
                name, self.guidance.limit, len(self.clamped), len(self.grid.timesteps),
            )  # fmt: skip
