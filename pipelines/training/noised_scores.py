"""A worker that asks a scorer of pictures about noised pairs: decodes both members and scores them like clean pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from infra.dag.stage import Places
from infra.lazy import lazy
from infra.store.tables import schema_of
from pipelines.models.families.base import Family
from pipelines.models.rewards.pictures import NoisedPictures
from pipelines.models.rewards.reward import Shown
from pipelines.models.scorers.scorer import Scorer
from pipelines.schemas.training import NoisedScore
from pipelines.training.data import COLUMNS, Latents, OpenTrainingData
from pipelines.training.reward import noise_at, pair_scores

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")


class NoisedScoreWorker:
    """Decodes both members of each pair at a time and asks the scorer."""

    def __init__(
        self, scorer: Scorer, policy: Family, encoded: Any, *, empty: str, shown: Shown, dimension: str, at_once: int
    ) -> None:
        self.scorer, self.policy, self.encoded, self.empty = scorer, policy, encoded, empty
        self.shown: Shown = shown
        self.dimension, self.at_once = dimension, at_once

    def open(self, device: str, places: Places) -> None:
        """Loads the generator's VAE, its denoiser where it predicts, and the scorer."""
        self.device = device
        self.pictures = NoisedPictures(self.policy, shown=self.shown, device=device)
        self.opened = self.scorer.open(device, places)
        self.latents = Latents(self.encoded)

    def run(self, cells: pa.Table) -> pa.Table:
        """One row per cell, in order."""
        data = OpenTrainingData.of_table(cells.select(COLUMNS), self.latents, empty=self.empty)
        shapes = np.zeros(len(data), dtype=int) if data.groups is None else data.groups
        found = np.empty((len(data), 2))
        for shape in np.unique(shapes):
            places = np.flatnonzero(shapes == shape)
            for start in range(0, len(places), self.at_once):
                part = places[start : start + self.at_once]
                found[part] = self._scored(data, part, cells.take(pa.array(part)))
        columns = {"id": cells["id"], "pair": cells["example"]} | {name: cells[name] for name in ("prompt_id", "t", "tie")}
        said = {"scorer": self.scorer.name, "dimension": self.dimension, "shown": self.shown}
        columns |= {name: pa.array([value] * len(data), pa.string()) for name, value in said.items()}
        columns |= {side: pa.array(found[:, k], from_pandas=True) for k, side in enumerate(("winner", "loser"))}
        schema = schema_of(NoisedScore)
        return pa.table(columns).select(schema.names).cast(schema)

    def _scored(self, data: OpenTrainingData, places: np.ndarray, cells: pa.Table) -> np.ndarray:
        """Scores of winner and loser, float[places, 2]; NaN where the scorer has none."""
        from pipelines.models.rewards.scored_pixels import ScoredPixels

        batch = data.batch(places.tolist(), device=torch.device(self.device))
        texts, times = cells["text"].to_pylist(), cells["t"].to_pylist()
        reward = ScoredPixels(self.pictures, self.opened, [*texts, *texts])
        noise = noise_at(times, cells["example"].to_pylist(), shape=batch.winners.shape[1:])
        path = self.pictures.generator.path
        scores = pair_scores(reward, batch, noise=noise, t=torch.tensor(times), path=path)
        return scores[..., self.scorer.dimensions.index(self.dimension)].double().cpu().numpy()
