"""What is random about a training example: noise, time, whether it is flipped, whether its text is left out.

Everything follows from one seed. That of a fixed draw belongs to the pair and not to the step, so what a frozen reference
makes of it can be computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from actors.training.draws import Draw
from infra.identity import seed_of
from infra.lazy import lazy
from pipelines.algorithms.diffusion.flow import TimeSampler
from pipelines.algorithms.diffusion.path import NoisePath, PathSample
from pipelines.training.data import Batch, OpenTrainingData

if TYPE_CHECKING:
    import torch

    from pipelines.models.families.loaded import LoadedFamily
else:
    torch = lazy("torch")

SEEDS = 2**63  # above every seed


@dataclass(frozen=True)
class NoiseDraws:
    """Noise and times of training: drawn anew at every step, or from a fixed number of draws of each pair."""

    times: TimeSampler
    draws: int | None
    """Number of different (noise, time) of each pair, used in turn, from seeds of the pair; None: another at every step."""
    seed: int = 0
    """Seed of the fixed draws."""
    caption_dropout: float = 0.0
    """Share of the examples whose text is replaced by the empty one, in [0, 1)."""
    flips: bool = False
    """Whether both members of half of the examples have left and right exchanged."""

    def number(self, draw: Draw) -> int:
        """Which of the fixed draws an example is at."""
        return draw.epoch % cast(int, self.draws)

    def seed_of(self, draw: Draw, *, example: str) -> int:
        """The seed of all that is random about an example in a step."""
        return draw.seed if self.draws is None else fixed_seed(example, self.number(draw), seed=self.seed)

    def sample(self, seeds: Sequence[int], *, shape: Sequence[int], own_shift: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Noise float[b, *shape] and times float[b], each from its own seed, on the CPU whatever trains."""
        noises, times = [], []
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            noises.append(torch.randn(*shape, generator=generator))
            times.append(self.times.sample(1, generator=generator, own_shift=own_shift))
        return torch.stack(noises), torch.cat(times)

    def batch(self, data: OpenTrainingData, index: Sequence[int], seeds: Sequence[int], *, device: torch.device) -> Batch:
        """These examples, flipped and without their texts as their seeds say."""
        flipped = [self.flips and seed_of("flip", seed) % 2 == 1 for seed in seeds]
        dropped = [seed_of("caption", seed) < self.caption_dropout * SEEDS for seed in seeds]
        return data.batch(index, device=device, flipped=flipped, dropped=dropped)

    def noised(self, batch: Batch, seeds: Sequence[int], *, loaded: LoadedFamily) -> PathSample:
        """Winners, then losers, on the family's path at the noise and times of the seeds, shared by both members."""
        shape = tuple(batch.winners.shape[1:])
        noise, t = self.sample(seeds, shape=shape, own_shift=loaded.time_shift(shape))
        return noised_pair(batch, noise=noise, t=t, path=loaded.path)


def noised_pair(
    batch: Batch, *, noise: torch.Tensor, t: torch.Tensor, path: NoisePath, of_losers: torch.Tensor | None = None
) -> PathSample:
    """Winners, then losers, both at noise float[b, *shape] and times float[b]; `of_losers`: other noise of the losers."""
    data = torch.cat([batch.winners, batch.losers])
    noise, t = torch.cat([noise, noise if of_losers is None else of_losers]).to(data), t.to(data)
    return path.sample(data, noise=noise, t=torch.cat([t, t]))


def fixed_seed(example: str, number: int, *, seed: int) -> int:
    """The seed of an example's draw number `number`: of the pair, not of the step, so that its errors can be cached."""
    return seed_of("draw", seed, example, number)
