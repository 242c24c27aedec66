"""A latent reward model as an objective of the trainer, and what it says of held-out pairs at each noise level."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pyarrow.parquet as pq
from pydantic import Field

from actors.device import prepare
from actors.training.draws import Draw
from actors.training.engines.engine import Cast, uncast
from actors.training.launch import Session, scratch_folder
from actors.training.objective import Losses
from infra.identity import seed_of
from infra.lazy import lazy
from infra.store.tables import to_table
from pipelines.algorithms.reward.accuracy import by_time
from pipelines.algorithms.reward.bradley_terry import A_WINS, TIE, BradleyTerry, BradleyTerryTies
from pipelines.models.exact import refuse_unequal, trained_names
from pipelines.models.families.base import Family
from pipelines.models.rewards.reward import RewardModel
from pipelines.schemas.training import RewardAccuracy, RewardScore
from pipelines.training.data import Batch, Materials, Opened, OverExamples, Randomness

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pipelines.algorithms.diffusion.path import NoisePath
    from pipelines.models.rewards.network import RewardNetwork
else:
    torch = lazy("torch")

PairLoss = Annotated[BradleyTerry | BradleyTerryTies, Field(discriminator="kind")]
"""The loss of a reward model; Bradley-Terry learns from decided pairs, the form with ties from all of them."""

TIMES = (0.02, 0.2, 0.4, 0.6, 0.8, 0.9)
MEASURED_AT_ONCE = 128  # pairs
SCORES_FILE = "scores.parquet"


@dataclass
class RewardObjective(OverExamples):
    """A loss of pairs on noised latents: both members share noise and time, and one forward pass scores both."""

    model: RewardModel
    policy: Family
    """The generator whose denoiser is the backbone, with weights that any process can read."""
    materials: Materials
    loss: BradleyTerry | BradleyTerryTies
    randomness: Randomness
    described: dict[str, Any]
    _ready: Any = field(default=None, init=False, repr=False)

    def describe(self) -> dict[str, Any]:
        """The stage's identity, as the artifact's record has it."""
        return self.described

    def prepare(self, device: torch.device, *, cast: Cast = uncast) -> nn.Module:
        """Loads the backbone and opens the examples."""
        network = self.model.build(self.policy, device=device)
        self._ready = _Ready(network, self.materials.open(), device)
        return network

    @property
    def needs_means(self) -> bool:
        return False

    def statistics(self, model: nn.Module, draws: list[Draw]) -> dict[str, torch.Tensor]:
        return {}

    def losses(self, model: nn.Module, draws: list[Draw], *, means: Mapping[str, float]) -> Losses:
        """The loss of every pair, and whether its winner leads; a tie counts as half right."""
        ready: _Ready = self._ready
        batch = ready.opened.batch([draw.index for draw in draws], device=ready.device)
        rows, shape = batch.rows, tuple(batch.winners.shape[1:])
        seeds = [self.randomness.seed_of(draw, example=row["id"]) for draw, row in zip(draws, rows, strict=True)]
        shift = ready.network.generator.time_shift(shape)
        noise, t = self.randomness.sample(seeds, shape=shape, own_shift=shift)
        scores = pair_scores(model, batch, noise=noise, t=t, path=ready.network.generator.path)
        lead = scores[:, 0, 0] - scores[:, 1, 0]
        outcome = torch.tensor([TIE if row["tie"] else A_WINS for row in rows], device=lead.device)
        right = torch.where(outcome == TIE, 0.5, 0.5 * (1 + torch.sign(lead.detach())))
        return Losses(losses=self.loss.losses(lead, outcome=outcome), metrics={"accuracy": right})

    def preview(self, model: nn.Module, *, step: int, folder: Path | None) -> None:
        """A reward has no pictures."""

    def export(self, parameters: dict[str, torch.Tensor], folder: Path) -> None:
        """Writes the trained parameters and the settings; ConfigError unless they are exactly the network's."""
        wanted = trained_names(self._ready.network)
        refuse_unequal(parameters, wanted=wanted, source="the trained reward model")
        self.model.save(parameters, folder, backbone=self.policy)


@dataclass(frozen=True)
class _Ready:
    network: RewardNetwork
    opened: Opened
    device: torch.device


def pair_scores(model: nn.Module, batch: Batch, *, noise: torch.Tensor, t: torch.Tensor, path: NoisePath) -> torch.Tensor:
    """Scores float[pairs, (winner, loser), dimensions] at noise float[pairs, *shape] and times float[pairs]."""
    noise, t = noise.to(batch.winners), t.to(batch.winners.device)
    data = torch.cat([batch.winners, batch.losers])
    sample = path.sample(data, noise=torch.cat([noise, noise]), t=torch.cat([t, t]))
    condition = {name: torch.cat([value, value]) for name, value in batch.condition.items()}
    return torch.stack(model(sample.x_t, t=sample.t, condition=condition).chunk(2), dim=1)


def scores_by_time(
    network: RewardNetwork, opened: Opened, *, dimensions: Sequence[str], at_once: int = MEASURED_AT_ONCE
) -> list[RewardScore]:
    """Scores of both members of every pair at each of TIMES, under one noise for the pair and time."""
    device = next(network.parameters()).device
    groups = opened.groups or [0] * len(opened.rows)
    rows = []
    for t in TIMES:
        for group in sorted(set(groups)):
            members = [place for place, one in enumerate(groups) if one == group]
            for start in range(0, len(members), at_once):
                index = members[start : start + at_once]
                batch = opened.batch(index, device=device)
                noise = _noise_at(t, [row["id"] for row in batch.rows], shape=batch.winners.shape[1:])
                times = torch.full((len(index),), t)
                with torch.no_grad():
                    scores = pair_scores(network, batch, noise=noise, t=times, path=network.generator.path)
                for row, pair in zip(batch.rows, scores.float().cpu().tolist(), strict=True):
                    rows += _rows(row["id"], t, *pair, dimensions=dimensions)
    return rows


@dataclass(frozen=True)
class Measurement:
    """A trained reward model and held-out pairs: all that a worker is sent to score them."""

    model: RewardModel
    policy: Family
    """The generator of its backbone, with weights that any process can read."""
    weights: Path
    """Folder of the trained model."""
    materials: Materials
    device: str
    """"cpu" or "cuda"."""


def measure(job: Measurement, session: Session) -> None:
    """A loop of one worker: commits the scores of all pairs as SCORES_FILE."""
    if session.checkpoint() is not None:
        return
    prepare(job.device)
    network = job.model.loaded(job.weights, backbone=job.policy, device=job.device)
    scores = scores_by_time(network, job.materials.open(), dimensions=job.model.dimensions)
    with scratch_folder(session.folder) as folder:
        pq.write_table(to_table(scores, RewardScore), folder / SCORES_FILE)
        session.commit(folder)


def _noise_at(t: float, pairs: Sequence[str], *, shape: Sequence[int]) -> torch.Tensor:
    seeds = [seed_of("accuracy", pair, str(t)) for pair in pairs]
    return torch.stack([torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def _rows(
    pair: str, t: float, winner: Sequence[float], loser: Sequence[float], *, dimensions: Sequence[str]
) -> Iterator[RewardScore]:
    for dimension, better, worse in zip(dimensions, winner, loser, strict=True):
        yield RewardScore(pair=pair, t=t, dimension=dimension, winner=better, loser=worse)


def accuracy_by_time(scores: Sequence[RewardScore], opened: Opened, *, dimension: str) -> list[RewardAccuracy]:
    """Share of decided pairs whose winner leads in a dimension, at each of TIMES; intervals resample prompts."""
    leads = {(row.t, row.pair): row.winner - row.loser for row in scores if row.dimension == dimension}
    difference = np.array([[leads[t, row["id"]] for row in opened.rows] for t in TIMES])
    outcome = np.array([TIE if row["tie"] else A_WINS for row in opened.rows])
    prompts = [row["prompt"] for row in opened.rows]
    generator = np.random.default_rng(seed_of("accuracy", "interval"))
    rows = by_time(difference, t=TIMES, outcome=outcome, groups=prompts, generator=generator)
    return [RewardAccuracy(t=r.t, accuracy=r.accuracy, low=r.low, high=r.high, pairs=r.pairs) for r in rows]
