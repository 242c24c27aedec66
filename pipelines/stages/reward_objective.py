"""The reward model as an objective of the trainer, and its accuracy by noise level."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from actors.trainer import Draw, Losses
from infra.identity import seed_of
from infra.lazy import lazy
from pipelines.algorithms.diffusion.flow import TimeSampler, path_sample
from pipelines.algorithms.reward.accuracy import by_time
from pipelines.algorithms.reward.bradley_terry import A_WINS, BradleyTerry
from pipelines.schemas import RewardAccuracy
from pipelines.stages.preference import DecidedPairs, noise_and_times

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pipelines.models.reward import RewardModel
else:
    torch = lazy("torch")

TIMES = (0.02, 0.2, 0.4, 0.6, 0.8, 0.9)


@dataclass
class RewardObjective:
    """Bradley-Terry on noised latents: shared noise and time for both members, one forward pass for both."""

    policy_folder: Path
    pairs_folder: Path
    loss: BradleyTerry
    times: TimeSampler
    task_tokens: int
    _ready: Any = field(default=None, init=False, repr=False)

    def prepare(self, device: torch.device) -> nn.Module:
        """Loads the backbone and the pairs, and encodes each text once."""
        from pipelines.models.miniature.pipeline import to_model
        from pipelines.models.reward import build_reward

        pairs = DecidedPairs.load(self.pairs_folder)
        model = build_reward(self.policy_folder, task_tokens=self.task_tokens, device=device)
        texts = sorted(set(pairs.texts))
        number = {text: i for i, text in enumerate(texts)}
        rows = torch.tensor([number[text] for text in pairs.texts])
        data = torch.stack([to_model(pairs.winners), to_model(pairs.losers)]).to(device)
        self._ready = _Ready(model, pairs, data, rows, model.conditions(texts))
        return model.network

    @property
    def size(self) -> int:
        """Number of pairs with a winner."""
        return len(self._ready.pairs)

    def name_of(self, index: int) -> str:
        """The pair's id."""
        return self._ready.pairs.ids[index]

    def losses(self, model: nn.Module, draws: list[Draw]) -> Losses:
        """-log sigma of the winner's lead, and whether it leads."""
        index = [draw.index for draw in draws]
        noise, t = noise_and_times(draws, shape=self._ready.data.shape[2:], times=self.times)
        lead = self._ready.lead(model, index, noise=noise, t=t)
        outcome = torch.full_like(lead, A_WINS, dtype=torch.long)
        right = 0.5 * (1 + torch.sign(lead.detach()))
        return Losses(losses=self.loss.losses(lead, outcome=outcome), metrics={"accuracy": right})

    def export(self, parameters: dict[str, torch.Tensor], folder: Path) -> None:
        """Backbone and head in one folder that `load_reward` reads."""
        from pipelines.models.reward import build_reward

        whole = build_reward(self.policy_folder, task_tokens=self.task_tokens, device=torch.device("cpu"))
        whole.network.load_state_dict(parameters, strict=False)
        whole.save(folder)


@dataclass(frozen=True)
class _Ready:
    model: RewardModel
    pairs: DecidedPairs
    data: torch.Tensor  # x_0 float[2, n, c, h, w]: winners, losers
    rows: torch.Tensor  # of each pair, its text's row in `embeddings`
    embeddings: Any

    def lead(self, network: nn.Module, index: list[int], *, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Winner's score minus loser's, float[b]."""
        data = self.data[:, index].flatten(0, 1)
        sample = path_sample(data, noise=noise.repeat(2, 1, 1, 1).to(data), t=t.repeat(2).to(data))
        condition = self.embeddings[self.rows[index].repeat(2)]
        winner, loser = network(sample.x_t, condition.tokens, condition.pooled, sample.t).chunk(2)
        return winner - loser


def accuracy_by_time(model: RewardModel, pairs: DecidedPairs) -> list[RewardAccuracy]:
    """Share of pairs in which the winner leads, at each of TIMES, with one noise a pair for both members."""
    from pipelines.models.miniature.pipeline import to_model

    winners, losers = to_model(pairs.winners), to_model(pairs.losers)
    lead = []
    for t in TIMES:
        generators = [torch.Generator().manual_seed(seed_of("accuracy", name, str(t))) for name in pairs.ids]
        noise = torch.stack([torch.randn(winners.shape[1:], generator=each) for each in generators])
        scores = [model.score((1 - t) * data + t * noise, pairs.texts, t) for data in (winners, losers)]
        lead.append((scores[0] - scores[1]).numpy())
    outcome = np.full(len(pairs), A_WINS)
    rows = by_time(np.stack(lead), t=TIMES, outcome=outcome)
    return [RewardAccuracy(t=r.t, accuracy=r.accuracy, low=r.low, high=r.high, pairs=r.pairs) for r in rows]
