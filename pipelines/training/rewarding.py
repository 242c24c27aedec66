"""What an online training is rewarded for: latent reward models, scorers of pictures, jurors that grade, weighted sums.

A latent reward reads noised latents at their own time. A scorer or a juror reads pictures: finished ones, or in the middle
of a rollout the data that the policy predicts there, decoded. A score that could not be had is NaN; so is every sum that it
is part of, and the sample is masked and counted.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from actors.media import encode_mp4, encode_png, is_clip
from infra.config import Config, ConfigError
from infra.dag.stage import Places, Stage
from infra.lazy import lazy
from pipelines.algorithms.prompting.opinion import Opinion
from pipelines.models.families.base import Family
from pipelines.models.jurors.juror import Case, Juror, OpenJuror
from pipelines.models.rewards.trained import OpenLatentReward, TrainedLatentReward
from pipelines.models.rollout import Candidates
from pipelines.models.scorers.scorer import OpenScorer, Sample, Scorer

if TYPE_CHECKING:
    import torch

    from pipelines.models.families.loaded import LoadedFamily
    from pipelines.models.families.steps import SamplingSteps
else:
    torch = lazy("torch")


@dataclass(frozen=True)
class OnlinePrompt:
    """A text to roll out."""

    encoded: str  # id of its encoded conditions
    text: str
    expectation: str  # canonical JSON of what it asks for; "" where nobody says


class ToScore:
    """Latents of a rollout that are to be scored, with the prompts of its rows."""

    def __init__(self, candidates: Candidates, grid: SamplingSteps, prompts: Sequence[OnlinePrompt]) -> None:
        self.candidates, self.grid = candidates, grid
        self.prompts = [prompts[row] for row in candidates.prompts.tolist()]

    @cached_property
    def data(self) -> torch.Tensor:
        """float[rows, *shape]: what the policy predicts of each when it is finished, by one forward."""
        found, grid = self.candidates, self.grid
        if not bool((found.t > 0).any()):
            return found.x
        answer = grid.at(found.x, grid.path.timesteps(found.t), prompts=found.prompts)
        return grid.path.clean(answer, x_t=found.x, t=found.t)


class OpenRewardTerm(ABC):
    """A reward on a device."""

    @abstractmethod
    def score(self, asked: ToScore) -> torch.Tensor:
        """float[b], higher is better; NaN where there is no score."""


class RewardTerm(Config, ABC):
    """One term of what is rewarded."""

    weight: float = Field(1.0, allow_inf_nan=False)
    """Factor in the sum of all terms, on the term's own scale."""
    dimensions: dict[str, float] = Field(default_factory=dict)
    """Weights of the term's dimensions; empty: all of them in equal shares. A latent reward has weights of its own."""

    @property
    @abstractmethod
    def known(self) -> tuple[str, ...]:
        """Names of the dimensions that it scores."""

    @property
    @abstractmethod
    def title(self) -> str:
        """Short name, for logs."""

    @abstractmethod
    def refuse(self, policy: Family) -> None:
        """Raises ConfigError for a policy whose latents it cannot read; called when a recipe is built."""

    @abstractmethod
    def open(self, policy: LoadedFamily, *, device: torch.device, places: Places) -> OpenRewardTerm:
        """Loads the model."""

    @cached_property
    def shares(self) -> np.ndarray:
        """float[dimensions]: the weight of each dimension. ConfigError for a name that it does not score."""
        if strange := set(self.dimensions) - set(self.known):
            raise ConfigError(f"reward {self.title}: no dimension {sorted(strange)[0]!r}; it has {', '.join(self.known)}")
        if not self.dimensions:
            return np.full(len(self.known), 1 / len(self.known))
        return np.array([self.dimensions.get(name, 0.0) for name in self.known])


@dataclass(frozen=True)
class FoundWeights:
    """Where the weights of stages lie, for a worker: picklable, where a stage's own context is not."""

    folders: Mapping[str, Path]
    """By the stage's key."""

    def weights(self, parent: Stage) -> Path:
        """The folder of a stage's weights."""
        return self.folders[parent.key]


class LatentTerm(RewardTerm):
    """A latent reward model on the policy's own kind of generator: it reads latents at every noise level, undecoded."""

    kind: Literal["latent"] = "latent"
    name: str = "latent"
    reward: TrainedLatentReward
    """The trained model; the weights of its dimensions are its own."""

    @property
    def known(self) -> tuple[str, ...]:
        return self.reward.model.dimensions

    @property
    def title(self) -> str:
        return self.name

    def refuse(self, policy: Family) -> None:
        """A reward of another family reads other latents and other text embeddings."""
        self.reward.refuse_other(policy)

    def open(self, policy: LoadedFamily, *, device: torch.device, places: Places) -> OpenRewardTerm:
        return _OpenLatent(self.reward.open(policy.family, device.type, places))


class _OpenLatent(OpenRewardTerm):
    def __init__(self, reward: OpenLatentReward) -> None:
        self.reward = reward

    def score(self, asked: ToScore) -> torch.Tensor:
        return self.reward.on(asked.grid)(asked.candidates).float()


class ScorerTerm(RewardTerm):
    """Any scorer of pictures or clips."""

    kind: Literal["scorer"] = "scorer"
    scorer: Scorer
    fps: float = Field(16.0, gt=0)
    """Frames per second that clips are shown at."""

    @property
    def known(self) -> tuple[str, ...]:
        return self.scorer.dimensions

    @property
    def title(self) -> str:
        return self.scorer.name

    def refuse(self, policy: Family) -> None:
        """A score of a group is no reward of one sample."""
        if self.scorer.of_group:
            raise ConfigError(f"reward {self.title} measures a group of samples; take a score of one")

    def open(self, policy: LoadedFamily, *, device: torch.device, places: Places) -> OpenRewardTerm:
        return _OpenScorerTerm(self, self.scorer.open(device.type, places), _Decoder(policy, device=device, fps=self.fps))


class JurorTerm(RewardTerm):
    """A pointwise juror, in process or served: the expected grade or log-odds that it gives a picture by itself."""

    kind: Literal["juror"] = "juror"
    juror: Juror
    fps: float = Field(16.0, gt=0)
    """Frames per second that clips are shown at."""

    @property
    def known(self) -> tuple[str, ...]:
        return self.juror.dimensions

    @property
    def title(self) -> str:
        return self.juror.name

    def refuse(self, policy: Family) -> None:
        """Whether a juror grades single pictures is known when it is asked."""

    def open(self, policy: LoadedFamily, *, device: torch.device, places: Places) -> OpenRewardTerm:
        return _OpenJurorTerm(self, self.juror.open(device.type, places), _Decoder(policy, device=device, fps=self.fps))


AnyReward = Annotated[LatentTerm | ScorerTerm | JurorTerm, Field(discriminator="kind")]
"""A term of what is rewarded: the type of an option."""


class _Decoder:
    """Latents as files, by the policy's own VAE."""

    def __init__(self, policy: LoadedFamily, *, device: torch.device, fps: float) -> None:
        self.family = policy.family.load(parts="decoder", device=device, dtype=policy.dtype)
        self.fps = fps

    def files(self, latents: torch.Tensor) -> list[bytes | None]:
        """One per latent; None for one that is not finite."""
        return [self._file(each) if bool(each.isfinite().all()) else None for each in latents]

    def _file(self, latent: torch.Tensor) -> bytes:
        frames = self.family.decode(latent[None])[0]
        return encode_png(frames[0]).bytes if len(frames) == 1 else encode_mp4(frames, fps=self.fps).bytes


class _OpenScorerTerm(OpenRewardTerm):
    def __init__(self, term: ScorerTerm, scorer: OpenScorer, decoder: _Decoder) -> None:
        self.term, self.scorer, self.decoder = term, scorer, decoder

    def score(self, asked: ToScore) -> torch.Tensor:
        def scores(files: Sequence[bytes], places: Sequence[int]) -> np.ndarray:
            medium: Literal["image", "video"] = "video" if is_clip(files[0]) else "image"
            samples = [
                Sample(file, medium, asked.prompts[place].text, asked.prompts[place].expectation)
                for file, place in zip(files, places, strict=True)
            ]
            return np.asarray(self.scorer.score(samples)) @ self.term.shares

        return _of_files(self.decoder, asked, scores)


class _OpenJurorTerm(OpenRewardTerm):
    def __init__(self, term: JurorTerm, juror: OpenJuror, decoder: _Decoder) -> None:
        self.term, self.juror, self.decoder = term, juror, decoder

    def score(self, asked: ToScore) -> torch.Tensor:
        def scores(files: Sequence[bytes], places: Sequence[int]) -> np.ndarray:
            cases = [
                Case(asked.prompts[place].text, first=file, second=None) for file, place in zip(files, places, strict=True)
            ]
            return np.array([self._grade(opinions) for opinions in self.juror.judge(cases)])

        return _of_files(self.decoder, asked, scores)

    def _grade(self, opinions: tuple[Opinion, ...] | Exception) -> float:
        if isinstance(opinions, Exception):
            return math.nan
        given = {opinion.dimension: math.nan if opinion.score is None else opinion.score for opinion in opinions}
        return sum(share * given[name] for name, share in zip(self.term.known, self.term.shares, strict=True) if share)


def _of_files(
    decoder: _Decoder, asked: ToScore, scores: Callable[[Sequence[bytes], Sequence[int]], np.ndarray]
) -> torch.Tensor:
    """Scores of the decoded data; NaN for latents that are not finite."""
    files = decoder.files(asked.data)
    places = [place for place, file in enumerate(files) if file is not None]
    found = np.full(len(files), math.nan)
    if places:
        found[places] = scores([file for file in files if file is not None], places)
    return torch.tensor(found, dtype=torch.float32, device=asked.candidates.x.device)


class OpenRewards:
    """All terms on a device; their weighted sum is the reward."""

    def __init__(self, terms: Sequence[AnyReward], *, policy: LoadedFamily, device: torch.device, places: Places) -> None:
        self.terms = [(term, term.open(policy, device=device, places=places)) for term in terms]
        self.seconds, self.asked = 0.0, 0

    def taken(self) -> tuple[float, int]:
        """Seconds and number of latents since this was last asked."""
        found = self.seconds, self.asked
        self.seconds, self.asked = 0.0, 0
        return found

    def score(self, asked: ToScore) -> torch.Tensor:
        """float[b]; NaN where any term has none."""
        begun = time.perf_counter()
        rows = asked.candidates.x
        total = torch.zeros(len(rows), device=rows.device)
        for term, opened in self.terms:
            total = total + term.weight * opened.score(asked)
        self.seconds += time.perf_counter() - begun
        self.asked += len(rows)
        return torch.where(total.isfinite(), total, torch.nan)
