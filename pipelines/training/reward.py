"""The reward model as an objective of the trainer, and its accuracy by noise level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from actors.training.draws import Draw
from actors.training.objective import Losses
from infra.identity import seed_of
from infra.lazy import lazy
from pipelines.algorithms.diffusion.path import FlowPath
from pipelines.algorithms.reward.accuracy import by_time
from pipelines.algorithms.reward.bradley_terry import A_WINS, BradleyTerry
from pipelines.schemas.training import RewardAccuracy
from pipelines.training.data import Materials, Opened, OverExamples, Randomness

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pipelines.models.rewards.task_tokens import RewardModel
else:
    torch = lazy("torch")

TIMES = (0.02, 0.2, 0.4, 0.6, 0.8, 0.9)
MEASURED_AT_ONCE = 128  # pairs


@dataclass
class RewardObjective(OverExamples):
    """Bradley-Terry on noised latents: shared noise and time for both members, one forward pass for both."""

    policy_folder: Path
    materials: Materials
    loss: BradleyTerry
    randomness: Randomness
    task_tokens: int
    described: dict[str, Any]
    _ready: Any = field(default=None, init=False, repr=False)

    def describe(self) -> dict[str, Any]:
        """The stage's identity, as the artifact's record has it."""
        return self.described

    def prepare(self, device: torch.device) -> nn.Module:
        """Loads the backbone and opens the examples."""
        from pipelines.models.rewards.task_tokens import build_reward

        model = build_reward(self.policy_folder, task_tokens=self.task_tokens, device=device)
        self._ready = _Ready(model, self.materials.open(), device)
        return model.network

    @property
    def needs_means(self) -> bool:
        """Each pair's loss is its own."""
        return False

    def statistics(self, model: nn.Module, draws: list[Draw]) -> dict[str, torch.Tensor]:
        """None needed."""
        del model, draws
        return {}

    def losses(self, model: nn.Module, draws: list[Draw], *, means: Mapping[str, float]) -> Losses:
        """-log sigma of the winner's lead, and whether it leads."""
        del means
        ready: _Ready = self._ready
        names = [self.name_of(draw.index) for draw in draws]
        seeds = [self.randomness.seed_of(draw, example=name) for draw, name in zip(draws, names, strict=True)]
        shape = ready.opened.batch([draws[0].index], device=ready.device).winners.shape[1:]
        noise, t = self.randomness.sample(seeds, shape=shape, own_shift=1.0)
        lead = lead_of(model, ready.opened, [draw.index for draw in draws], noise=noise, t=t, device=ready.device)
        outcome = torch.full_like(lead, A_WINS, dtype=torch.long)
        right = 0.5 * (1 + torch.sign(lead.detach()))
        return Losses(losses=self.loss.losses(lead, outcome=outcome), metrics={"accuracy": right})

    def preview(self, model: nn.Module, *, step: int, folder: Path | None) -> None:
        """A reward has no pictures."""

    def export(self, parameters: dict[str, torch.Tensor], folder: Path) -> None:
        """Backbone and head in one folder that `load_reward` reads."""
        from pipelines.models.rewards.task_tokens import build_reward

        whole = build_reward(self.policy_folder, task_tokens=self.task_tokens, device=torch.device("cpu"))
        whole.network.load_state_dict(parameters, strict=False)
        whole.save(folder)


@dataclass(frozen=True)
class _Ready:
    model: RewardModel
    opened: Opened
    device: torch.device


def lead_of(
    network: nn.Module,
    opened: Opened,
    index: Sequence[int],
    *,
    noise: torch.Tensor,
    t: torch.Tensor,
    device: torch.device,
) -> torch.Tensor:
    """Winner's score minus loser's, float[b], at noise float[b, *shape] and times float[b]."""
    batch = opened.batch(index, device=device)
    data = torch.cat([batch.winners, batch.losers])
    noise, t = noise.to(data), t.to(data)
    sample = FlowPath().sample(data, noise=torch.cat([noise, noise]), t=torch.cat([t, t]))
    condition = {name: torch.cat([value, value]) for name, value in batch.condition.items()}
    winner, loser = network(sample.x_t, condition["tokens"], condition["pooled"], sample.t).chunk(2)
    return winner - loser


def accuracy_by_time(model: RewardModel, opened: Opened) -> list[RewardAccuracy]:
    """Share of pairs in which the winner leads, at each of TIMES, with one noise a pair for both members."""
    device = next(model.network.parameters()).device
    leads = []
    for t in TIMES:
        found = []
        for start in range(0, len(opened.rows), MEASURED_AT_ONCE):
            index = range(start, min(start + MEASURED_AT_ONCE, len(opened.rows)))
            seeds = [seed_of("accuracy", opened.rows[i]["id"], str(t)) for i in index]
            shape = opened.batch([start], device=device).winners.shape[1:]
            noise = torch.stack([torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
            times = torch.full((len(seeds),), t)
            with torch.no_grad():
                found.append(lead_of(model.network, opened, list(index), noise=noise, t=times, device=device))
        leads.append(torch.cat(found).float().cpu().numpy())
    outcome = np.full(len(opened.rows), A_WINS)
    prompts = [row["prompt"] for row in opened.rows]
    generator = np.random.default_rng(seed_of("accuracy", "interval"))
    rows = by_time(np.stack(leads), t=TIMES, outcome=outcome, groups=prompts, generator=generator)
    return [RewardAccuracy(t=r.t, accuracy=r.accuracy, low=r.low, high=r.high, pairs=r.pairs) for r in rows]
