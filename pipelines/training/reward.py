"""A latent reward model as an objective of the trainer, and what it says of held-out pairs at each noise level."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

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
from pipelines.algorithms.reward.accuracy import GRID
from pipelines.algorithms.reward.bradley_terry import A_WINS, TIE, BradleyTerry, BradleyTerryTies
from pipelines.algorithms.reward.enhanced import BINS
from pipelines.models.exact import refuse_unequal, trained_names
from pipelines.models.families.base import Family
from pipelines.models.rewards.reward import LatentReward, RewardModel
from pipelines.schemas.training import RewardScore
from pipelines.training.data import Batch, OpenTrainingData, TrainingData
from pipelines.training.noise import NoiseDraws, noised_pair

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pipelines.algorithms.diffusion.path import NoisePath, PathSample
    from pipelines.models.families.base import Condition
    from pipelines.models.rewards.network import RewardNetwork
else:
    torch = lazy("torch")

PairLoss = Annotated[BradleyTerry | BradleyTerryTies, Field(discriminator="kind")]
"""The loss of a reward model; Bradley-Terry learns from decided pairs, the form with ties from all of them."""

PairNoise = Literal["shared", "independent"]
"""Whether both members of a pair get the same noise, which has the lower variance, or each its own (DRM, LRM)."""

MEASURED_AT_ONCE = 128  # pairs
CALIBRATION_PAIRS = 64
SCORES_FILE = "scores.parquet"


@dataclass
class RewardObjective:
    """A loss of pairs on noised latents: both members have one time, and one forward pass scores both."""

    model: RewardModel
    policy: Family
    """The generator whose denoiser is the backbone, with weights that any process can read."""
    data: TrainingData
    loss: BradleyTerry | BradleyTerryTies
    noise: NoiseDraws
    described: dict[str, Any]
    pair_noise: PairNoise = "shared"
    checkpointing: bool = False
    _ready: Any = field(default=None, init=False, repr=False)

    def describe(self) -> dict[str, Any]:
        """The stage's identity, as the artifact's record has it."""
        return self.described

    def prepare(self, device: torch.device, *, cast: Cast = uncast) -> nn.Module:
        """Loads the backbone and opens the examples."""
        network = self.model.build(self.policy, device=device)
        if self.checkpointing:
            network.generator.checkpointing()
        self._ready = _Ready(network, self.data.open(), device)
        network.calibrate(calibration_points(self._ready.data, path=network.generator.path, device=device))
        return network

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
    def needs_means(self) -> bool:
        return False

    def statistics(self, model: nn.Module, draws: list[Draw]) -> dict[str, torch.Tensor]:
        return {}

    def losses(self, model: nn.Module, draws: list[Draw], *, means: Mapping[str, float]) -> Losses:
        """The loss of every pair, and whether its winner leads; a tie counts as half right."""
        ready: _Ready = self._ready
        batch = ready.data.batch([draw.index for draw in draws], device=ready.device)
        shape = tuple(batch.winners.shape[1:])
        seeds = [self.noise.seed_of(draw, example=name) for draw, name in zip(draws, batch.ids, strict=True)]
        shift = ready.network.generator.time_shift(shape)
        noise, t = self.noise.sample(seeds, shape=shape, own_shift=shift)
        of_losers = _own_noise(seeds, shape=shape) if self.pair_noise == "independent" else None
        given = {"noise": noise, "t": t, "of_losers": of_losers}
        scores = pair_scores(model, batch, path=ready.network.generator.path, **given)
        lead = scores[:, 0, 0] - scores[:, 1, 0]
        ties = torch.from_numpy(batch.columns["tie"] > 0)
        outcome = torch.where(ties, TIE, A_WINS).to(lead.device)
        right = torch.where(outcome == TIE, 0.5, 0.5 * (1 + torch.sign(lead.detach())))
        return Losses(losses=self.loss.losses(lead, outcome=outcome), metrics={"accuracy": right})

    def preview(self, model: nn.Module, *, step: int, folder: Path | None) -> None:
        """A reward has no pictures."""

    def export(self, parameters: dict[str, torch.Tensor], folder: Path) -> None:
        """Writes the trained parameters and the settings; ConfigError unless they are exactly the network's."""
        network = self._ready.network
        refuse_unequal(parameters, wanted=trained_names(network), source="the trained reward model")
        constants = {name: network.get_buffer(name).cpu() for name in network.constants}
        self.model.save({**parameters, **constants}, folder, backbone=self.policy)


@dataclass(frozen=True)
class _Ready:
    network: RewardNetwork
    data: OpenTrainingData
    device: torch.device


def calibration_points(
    data: OpenTrainingData, *, path: NoisePath, device: torch.device
) -> Iterator[tuple[PathSample, Condition]]:
    """Both members of some pairs, spread over the data, noised to the middle of each bin of t: one pair at a time."""
    for index in np.unique(np.linspace(0, len(data) - 1, CALIBRATION_PAIRS).round().astype(int)).tolist():
        batch = data.batch([index], device=device)
        for t in ((np.arange(BINS) + 0.5) / BINS).tolist():
            noise = noise_at([t], batch.ids, shape=batch.winners.shape[1:])
            yield noised_pair(batch, noise=noise, t=torch.tensor([t], dtype=torch.float32), path=path), batch.both


def _own_noise(seeds: Sequence[int], *, shape: Sequence[int]) -> torch.Tensor:
    """Noise of the losers, float[pairs, *shape], from seeds of their own."""
    generators = (torch.Generator().manual_seed(seed_of("loser", seed)) for seed in seeds)
    return torch.stack([torch.randn(*shape, generator=generator) for generator in generators])


def pair_scores(
    model: nn.Module | LatentReward,
    batch: Batch,
    *,
    noise: torch.Tensor,
    t: torch.Tensor,
    path: NoisePath,
    of_losers: torch.Tensor | None = None,
) -> torch.Tensor:
    """Scores float[pairs, (winner, loser), dimensions] at noise float[pairs, *shape] and times float[pairs]."""
    sample = noised_pair(batch, noise=noise, t=t, path=path, of_losers=of_losers)
    return torch.stack(model(sample.x_t, t=sample.t, condition=batch.both, target=sample.target).chunk(2), dim=1)


def scores_by_time(
    network: RewardNetwork, data: OpenTrainingData, *, dimensions: Sequence[str], at_once: int = MEASURED_AT_ONCE
) -> list[RewardScore]:
    """Scores of both members of every pair at each time of GRID, under one noise for the pair and time."""
    device = next(network.parameters()).device
    groups = [0] * len(data) if data.groups is None else data.groups.tolist()
    rows = []
    for t in GRID:
        for group in sorted(set(groups)):
            members = [place for place, one in enumerate(groups) if one == group]
            for start in range(0, len(members), at_once):
                index = members[start : start + at_once]
                batch = data.batch(index, device=device)
                noise = noise_at([t] * len(index), batch.ids, shape=batch.winners.shape[1:])
                times = torch.full((len(index),), t)
                with torch.no_grad():
                    scores = pair_scores(network, batch, noise=noise, t=times, path=network.generator.path)
                for name, pair in zip(batch.ids, scores.float().cpu().tolist(), strict=True):
                    rows += _rows(name, t, *pair, dimensions=dimensions)
    return rows


@dataclass(frozen=True)
class Measurement:
    """A trained reward model and held-out pairs: all that a worker is sent to score them."""

    model: RewardModel
    policy: Family
    """The generator of its backbone, with weights that any process can read."""
    weights: Path
    """Folder of the trained model."""
    data: TrainingData
    device: str
    """"cpu" or "cuda"."""


def measure(job: Measurement, session: Session) -> None:
    """A loop of one worker: commits the scores of all pairs as SCORES_FILE."""
    if session.checkpoint() is not None:
        return
    prepare(job.device)
    network = job.model.loaded(job.weights, backbone=job.policy, device=job.device)
    scores = scores_by_time(network, job.data.open(), dimensions=job.model.dimensions)
    with scratch_folder(session.folder) as folder:
        pq.write_table(to_table(scores, RewardScore), folder / SCORES_FILE)
        session.commit(folder)


def noise_at(times: Sequence[float], pairs: Sequence[str], *, shape: Sequence[int]) -> torch.Tensor:
    """The noise float[pairs, *shape] under which every model is asked about each pair at its time."""
    seeds = [seed_of("accuracy", pair, str(t)) for t, pair in zip(times, pairs, strict=True)]
    return torch.stack([torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def _rows(
    pair: str, t: float, winner: Sequence[float], loser: Sequence[float], *, dimensions: Sequence[str]
) -> Iterator[RewardScore]:
    for dimension, better, worse in zip(dimensions, winner, loser, strict=True):
        yield RewardScore(pair=pair, t=t, dimension=dimension, winner=better, loser=worse)
