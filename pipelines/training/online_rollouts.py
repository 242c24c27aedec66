"""What a rank of an online training rolls out: its prompts' states with their rewards, and samples of held-out prompts."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infra.identity import seed_of
from infra.lazy import lazy
from pipelines.models.rollout import Candidates, RolloutPlan, roll_out
from pipelines.schemas.training import RolloutState
from pipelines.training.data import Latents
from pipelines.training.online_methods import AnyOnlineMethod, Collected
from pipelines.training.online_steps import TrainingSteps
from pipelines.training.rewarding import OnlinePrompt, OpenRewards, ToScore
from pipelines.training.rollouts import RolloutPart

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pipelines.models.policy import Policy
else:
    torch = lazy("torch")

HELD_OUT = "held_out"


@dataclass
class Roller:
    """A prepared policy with its rewards, on a device."""

    policy: Policy
    method: AnyOnlineMethod
    rewards: OpenRewards
    measures: OpenRewards
    """What is measured and not rewarded; may be empty."""
    texts: Latents
    empty: str
    """Id of the encoded empty text."""
    latent: tuple[int, ...]
    """Shape of a sample."""
    seed: int
    at_once: int
    """Prompts that one rollout has at most."""
    device: torch.device

    def grid(self, model: nn.Module, encoded: Sequence[str]) -> TrainingSteps:
        """The sampler's steps for these texts, one row each."""
        known = self.texts.get([*encoded, self.empty])
        return TrainingSteps(
            self.policy.loaded,
            model,
            [known[name] for name in encoded],
            negative=known[self.empty],
            shape=self.latent,
            steps=self.method.sampling_steps,
            guidance=self.method.guidance,
            free_gradient=self.method.free_gradient,
        )

    def rolled(self, model: nn.Module, mine: Sequence[tuple[int, OnlinePrompt]], *, number: int) -> RolloutPart:
        """The states of these prompts of round `number`, each with its place in the round."""
        begun = time.perf_counter()
        self.rewards.taken()
        states: list[RolloutState] = []
        tensors: list[Mapping[str, torch.Tensor]] = []
        forwards = 0
        for start in range(0, len(mine), self.at_once):
            some = mine[start : start + self.at_once]
            prompts = [prompt for _, prompt in some]
            grid = self.grid(model, [prompt.encoded for prompt in prompts])
            seeds = [seed_of(self.seed, "rollout", number, place, prompt.encoded) for place, prompt in some]
            theirs = Referring(self.policy, model, grid) if self.method.reference == "log_probs" else None
            score = Scoring(self.rewards, grid, prompts)
            rollout = roll_out(grid, plan=self.method.plan, seeds=seeds, reward=score, reference=theirs, number=number)
            forwards += grid.forwards
            for row, (place, prompt) in enumerate(some):
                for one in self.method.collected(rollout, row):
                    states.append(_state(one, prompt, number=number, place=place))
                    tensors.append(one.tensors)
        scoring, scored = self.rewards.taken()
        seconds = time.perf_counter() - begun - scoring
        notes: dict[str, Any] = {"rollout_seconds": seconds, "scoring_seconds": scoring}
        notes |= {"rollout_forwards": forwards, "scored": scored}
        return RolloutPart(states, tensors, notes)

    def measured(self, model: nn.Module, mine: Sequence[OnlinePrompt]) -> dict[str, list[float]]:
        """The reward, and the measures that are not rewarded, of the policy's own samples of these prompts."""
        found: dict[str, list[float]] = {"reward": [], "measure": []}
        for start in range(0, len(mine), self.at_once):
            prompts = mine[start : start + self.at_once]
            grid = self.grid(model, [prompt.encoded for prompt in prompts])
            seeds = [seed_of(self.seed, HELD_OUT, prompt.encoded) for prompt in prompts]
            for name, rewards in (("reward", self.rewards), ("measure", self.measures)):
                if not rewards.terms:
                    continue
                score = Scoring(rewards, grid, prompts)
                ended = roll_out(grid, plan=RolloutPlan(scored="end"), seeds=seeds, reward=score, learn=False)
                assert ended.scores is not None
                found[name] += ended.scores[:, 0].tolist()
        return found


class Referring:
    """The reference's guided prediction at a step of the rollout."""

    def __init__(self, policy: Policy, model: nn.Module, grid: TrainingSteps) -> None:
        self.policy, self.model, self.grid = policy, model, grid

    def __call__(self, x: torch.Tensor, index: int, *, prompts: torch.Tensor) -> torch.Tensor:
        with self.policy.referring(self.model) as reference:
            self.grid.model = reference
            try:
                return self.grid.predict(x, index, prompts=prompts)
            finally:
                self.grid.model = self.model


class Scoring:
    """The rewards of candidates of a rollout."""

    def __init__(self, rewards: OpenRewards, grid: TrainingSteps, prompts: Sequence[OnlinePrompt]) -> None:
        self.rewards, self.grid, self.prompts = rewards, grid, prompts

    def __call__(self, candidates: Candidates) -> torch.Tensor:
        return self.rewards.score(ToScore(candidates, self.grid, self.prompts))


def _state(one: Collected, prompt: OnlinePrompt, *, number: int, place: int) -> RolloutState:
    return RolloutState(
        id=f"{number:06d}-{place:05d}-{one.start:03d}-{one.step + 1:03d}",
        round=number,
        prompt=prompt.encoded,
        start=one.start,
        step=one.step,
        t=one.s,
        t_next=one.s_next,
        score=one.score,
        value=one.value,
        old=one.old,
        reference=one.reference,
        used=one.used,
    )
