"""Pairs of pictures as training material: read once, kept in one file, noised by seeds of (step, pair)."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from actors.trainer import Draw, Losses
from infra.config import ConfigError
from infra.lazy import lazy
from pipelines.algorithms.diffusion.flow import TimeSampler, path_sample, per_sample_error
from pipelines.algorithms.preference.pairwise import PairErrors, PairMethod, decided
from pipelines.models.policy import Full, LoRA, Policy

if TYPE_CHECKING:
    import torch
    from torch import nn
else:
    torch = lazy("torch")

PIXELS, NAMES = "pixels.safetensors", "pairs.json"


@dataclass(frozen=True)
class DecidedPairs:
    """Pairs with a winner: pixels uint8[n, h, w, 3], texts and ids."""

    winners: np.ndarray
    losers: np.ndarray
    texts: list[str]
    ids: list[str]
    prompts: list[str]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: Sequence[int] | np.ndarray) -> DecidedPairs:
        """Those rows."""
        chosen = [int(i) for i in index]
        texts, ids, prompts = ([column[i] for i in chosen] for column in (self.texts, self.ids, self.prompts))
        return DecidedPairs(self.winners[chosen], self.losers[chosen], texts, ids, prompts)

    def save(self, folder: Path) -> None:
        """Two files a worker loads."""
        from safetensors.numpy import save_file

        folder.mkdir(parents=True, exist_ok=True)
        save_file({"winners": self.winners, "losers": self.losers}, folder / PIXELS)
        names = {"texts": self.texts, "ids": self.ids, "prompts": self.prompts}
        (folder / NAMES).write_text(json.dumps(names))

    @classmethod
    def load(cls, folder: Path) -> DecidedPairs:
        """What `save` wrote."""
        from safetensors.numpy import load_file

        return cls(**load_file(folder / PIXELS), **json.loads((folder / NAMES).read_text()))


def decided_pairs(labels: pa.Table, pictures: pa.Table) -> DecidedPairs:
    """Labels (id, prompt_id, text, picture_a, picture_b, choice) without ties, with their pictures (id, image)."""
    order = np.argsort(labels["id"].to_pylist(), kind="stable")
    rows = labels.take(pa.array(order)).to_pylist()
    kept = decided([row["choice"] for row in rows])
    if not len(kept.index):
        raise ConfigError(f"training needs pairs with a winner, got {len(rows)} labels, all ties; add jurors or pairs")
    place = {name: number for number, name in enumerate(pictures["id"].to_pylist())}
    images = pictures["image"].combine_chunks().field("bytes")
    chosen = [rows[i] for i in kept.index]
    wanted = {row[side] for row in chosen for side in ("picture_a", "picture_b")}
    pixels = {name: _decode(images[place[name]].as_py()) for name in sorted(wanted)}
    first = [row["picture_a" if a else "picture_b"] for row, a in zip(chosen, kept.winner_is_a, strict=True)]
    second = [row["picture_b" if a else "picture_a"] for row, a in zip(chosen, kept.winner_is_a, strict=True)]
    return DecidedPairs(
        winners=np.stack([pixels[name] for name in first]),
        losers=np.stack([pixels[name] for name in second]),
        texts=[row["text"] for row in chosen],
        ids=[row["id"] for row in chosen],
        prompts=[row["prompt_id"] for row in chosen],
    )


@dataclass
class PreferenceObjective:
    """A preference loss of a policy on pairs: shared noise and time for both members, one forward pass for both."""

    policy_folder: Path
    pairs_folder: Path
    method: PairMethod
    adapter: LoRA | Full
    times: TimeSampler
    _ready: Any = field(default=None, init=False, repr=False)

    def prepare(self, device: torch.device) -> nn.Module:
        """Loads the policy and the pairs, and encodes each text once."""
        policy = Policy(self.policy_folder, adapter=self.adapter, device=device)
        pairs = DecidedPairs.load(self.pairs_folder)
        texts = sorted(set(pairs.texts))
        number = {text: i for i, text in enumerate(texts)}
        rows = torch.tensor([number[text] for text in pairs.texts])
        self._ready = _Ready(policy, pairs, rows, policy.conditions(texts))
        return policy.model

    @property
    def size(self) -> int:
        """Number of pairs with a winner."""
        return len(self._ready.pairs)

    def name_of(self, index: int) -> str:
        """The pair's id."""
        return self._ready.pairs.ids[index]

    def losses(self, model: nn.Module, draws: list[Draw]) -> Losses:
        """The method's loss of each pair, and the statistics of the training curve."""
        ready = self._ready
        index = [draw.index for draw in draws]
        data = ready.policy.data(np.concatenate([ready.pairs.winners[index], ready.pairs.losers[index]]))
        noise, t = noise_and_times(draws, shape=data.shape[1:], times=self.times)
        sample = path_sample(data, noise=noise.repeat(2, 1, 1, 1).to(data), t=t.repeat(2).to(data))
        condition = ready.embeddings[ready.rows[index].repeat(2)]
        velocity = ready.policy.velocity(model, sample.x_t, condition=condition, t=sample.t)
        reference = ready.policy.reference(model, sample.x_t, condition=condition, t=sample.t)
        winner, loser = per_sample_error(velocity, target=sample.velocity).chunk(2)
        reference_winner, reference_loser = per_sample_error(reference, target=sample.velocity).chunk(2)
        errors = PairErrors(winner, loser, reference_winner, reference_loser, t=t.to(data))
        found = self.method.losses(errors, margin=torch.zeros_like(winner))
        drift = per_sample_error(velocity.detach(), target=reference).chunk(2)
        return Losses(
            losses=found.losses,
            metrics={
                "implicit_accuracy": found.correct,
                "winner_error": found.winner_error,
                "loser_error": found.loser_error,
                "drift": (drift[0] + drift[1]) / 2,
            },
        )

    def export(self, parameters: dict[str, torch.Tensor], folder: Path) -> None:
        """The policy's own."""
        self._ready.policy.export(parameters, folder)


@dataclass(frozen=True)
class _Ready:
    policy: Policy
    pairs: DecidedPairs
    rows: torch.Tensor  # of each pair, its text's row in `embeddings`
    embeddings: Any


def noise_and_times(draws: list[Draw], *, shape: Sequence[int], times: TimeSampler) -> tuple[torch.Tensor, torch.Tensor]:
    """Each draw's noise float[b, *shape] and time float[b], from its own seed, on the CPU whatever trains."""
    noises, moments = [], []
    for draw in draws:
        generator = torch.Generator().manual_seed(draw.seed)
        noises.append(torch.randn(*shape, generator=generator))
        moments.append(times.sample(1, generator=generator))
    return torch.stack(noises), torch.cat(moments)


def _decode(png: bytes) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
