"""A generator whose samples a reward chooses or guides while they are made: best of N, step-wise sampling, Flow-NRG.

The reward is a latent reward model of the same DAG or in a folder, and part of the generator's identity: another reward
makes other pictures. Works with every family that can be trained, since it samples with the bare denoiser
(`models.rollout`). Without steering it is the family's own sampler.

    Steered(
        name="sd3.5-best-of-8", family=SD3(weights=Hub(repo="stabilityai/stable-diffusion-3.5-medium")), steps=28,
        guidance=4.5, height=512, width=512, reward=TrainedLatentReward(...), steering=BestOfN(count=8),
    )
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from infra.config import Config, ConfigError
from infra.dag.stage import Places
from infra.lazy import lazy
from pipelines.algorithms.diffusion.guidance import RewardGuidance
from pipelines.algorithms.diffusion.stochastic import DDIM, AnyStep, FlowSDE
from pipelines.algorithms.online.windows import EveryStep, Window
from pipelines.models.families.base import Family
from pipelines.models.generators import setup
from pipelines.models.generators.encodings import PROBES
from pipelines.models.generators.generator import Generator, Medium, Pixels, Request
from pipelines.models.rewards.trained import OpenLatentReward, RewardGuided, TrainedLatentReward
from pipelines.models.rollout import RolloutPlan, roll_out
from pipelines.models.weights import Weights

if TYPE_CHECKING:
    import torch

    from pipelines.models.families.base import Condition
    from pipelines.models.families.loaded import LoadedFamily
else:
    torch = lazy("torch")


class BestOfN(Config):
    """N samples per request from noises of their own, of which the one with the highest final reward is returned."""

    kind: Literal["best_of_n"] = "best_of_n"
    count: int = Field(4, ge=1, le=1024)
    """N; the first sample is the one that would be returned without steering."""

    @property
    def asks(self) -> bool:
        """Whether a reward is asked."""
        return True

    def plan(self) -> RolloutPlan:
        """N deterministic branches, scored at their end."""
        return RolloutPlan(branches=self.count, scored="end")


class StepwiseSampling(Config):
    """k stochastic candidates per step, of which the one with the highest reward at its own time goes on (DRM).

    The paper gives no noise level; 0.7 is Flow-GRPO's. The last step is deterministic, for its noise would stay.
    """

    kind: Literal["stepwise"] = "stepwise"
    candidates: int = Field(4, ge=1, le=1024)
    """k: they share one forward of the denoiser. With 1, noise is added and nothing is chosen."""
    window: Window = EveryStep()
    """Steps at which candidates are drawn."""
    step: AnyStep = FlowSDE()
    """How far they spread."""
    scored_from: float = Field(0.0, ge=0, le=1)
    """Candidates are scored from this share of the steps on."""
    scored_until: float = Field(1.0, ge=0, le=1)
    """Candidates are scored until this share of the steps."""

    @property
    def asks(self) -> bool:
        """Whether a reward is asked: a single candidate is not chosen."""
        return self.candidates > 1

    def plan(self) -> RolloutPlan:
        """One branch that goes on with the best candidate."""
        if not self.asks:
            return RolloutPlan(window=self.window, step=self.step)
        return RolloutPlan(
            candidates=self.candidates,
            window=self.window,
            step=self.step,
            scored="steps",
            scored_from=self.scored_from,
            scored_until=self.scored_until,
            keep=("best",),
        )


class FlowNRG(RewardGuidance):
    """The reward's gradient is added to the velocity (Liu et al., 2025, VideoAlign, section 4.4)."""

    kind: Literal["flow_nrg"] = "flow_nrg"

    @property
    def asks(self) -> bool:
        """Whether a reward is asked."""
        return True

    def plan(self) -> RolloutPlan:
        """The plain sampler: what differs is the velocity."""
        return RolloutPlan()


Steering = Annotated[BestOfN | StepwiseSampling | FlowNRG, Field(discriminator="kind")]
"""How a reward steers sampling: the type of an option."""


class Steered(Generator):
    """A family's generator, sampled with its bare denoiser and steered by a reward."""

    family: Family
    """The generator, with its weights."""
    lora: Weights | None = None
    """A LoRA on its weights, or a stage that trains one."""
    lora_scale: float = Field(1.0, allow_inf_nan=False)
    """How strongly the LoRA is added."""
    steps: int = Field(ge=1, le=1000)
    """Number of sampling steps."""
    guidance: float = Field(ge=0, allow_inf_nan=False)
    """Scale of classifier-free guidance; what guidance-distilled denoisers are told."""
    height: int = Field(ge=8)
    """Pixels."""
    width: int = Field(ge=8)
    """Pixels."""
    frames: int | None = Field(None, ge=2)
    """Frames of a clip; None: pictures."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Precision of the generator; its latents and the reward model are in single precision."""
    batch: int = Field(1, ge=1, le=256)
    """Requests that are sampled together, the last repeated where there are fewer: the size of a batch changes the last
    bits, so it is part of the identity. Families whose texts have different lengths are sampled one by one."""
    reward: TrainedLatentReward | None = None
    """What steers."""
    steering: Steering | None = None
    """How it steers; None: not at all."""

    @model_validator(mode="after")
    def _steerable(self) -> Steered:
        unscored = self.steering is None or not self.steering.asks
        if unscored != (self.reward is None):
            problem = "a reward is given that nothing asks" if unscored else "it needs a reward"
            raise ValueError(f"{self.name}: {problem}; give reward and steering together")
        if self.reward is not None:
            self.reward.refuse_other(self.family)
        for name, value in (("height", self.height), ("width", self.width)):
            if value % self.family.size_multiple:
                raise ValueError(f"{self.name}: {name} = {value} is no multiple of {self.family.size_multiple}; change it")
        if self.family.reads_first_frame:
            raise ValueError(f"{self.name}: a {self.family.name} generator begins with a frame; steering starts from texts")
        return self

    @property
    def medium(self) -> Medium:
        return "image" if self.frames is None else "video"

    @property
    def fps(self) -> float | None:
        return None if self.frames is None else self.family.frame_rate

    def open(self, device: str, places: Places) -> OpenSteered:
        """Generator and reward model on a device."""
        family = self.family.placed(places)
        self._refuse_other(family.prediction())
        loaded = family.load(parts="all", device=device, dtype=getattr(torch, self.dtype))
        if self.lora is not None:
            setup.add_lora(loaded.pipeline, self.lora.folder(places), scale=self.lora_scale)
        return OpenSteered(self, loaded, self.reward.open(family, device, places) if self.reward else None)

    def _refuse_other(self, prediction: str) -> None:
        """Raises ConfigError for steering of another kind of generator than this one, before weights are read."""
        flow = prediction == "flow"
        if isinstance(self.steering, FlowNRG) and not flow:
            raise ConfigError(
                f"{self.name}: reward guidance is for flows, this generator predicts {prediction}; use a search"
            )
        if isinstance(self.steering, StepwiseSampling) and flow == isinstance(self.steering.step, DDIM):
            remedy = "FlowSDE or Dance" if flow else "DDIM"
            raise ConfigError(
                f"{self.name}: this generator predicts {prediction}; give step-wise sampling {remedy} as its step"
            )


class OpenSteered:
    """A steered generator in memory."""

    def __init__(self, config: Steered, loaded: LoadedFamily, reward: OpenLatentReward | None) -> None:
        self.config, self.loaded, self.reward = config, loaded, reward
        probes = loaded.encode_texts(PROBES)
        same = {name: value.shape for name, value in probes[0].items()} == {n: v.shape for n, v in probes[1].items()}
        self.rows = config.batch if same else 1
        self.empty = loaded.unconditional()

    def sample(self, requests: Sequence[Request]) -> list[Pixels | Exception]:
        """See `OpenGenerator`; a request with a first frame is refused."""
        refused = ValueError(f"{self.config.name} samples from texts alone; give it no first frame")
        plain = [request for request in requests if request.first_frame is None]
        made = (each for start in range(0, len(plain), self.rows) for each in self._batch(plain[start : start + self.rows]))
        return [refused if request.first_frame is not None else next(made) for request in requests]

    def _batch(self, requests: Sequence[Request]) -> list[Pixels]:
        from pipelines.models.families.steps import SamplingSteps

        filled = [*requests, *[requests[-1]] * (self.rows - len(requests))]
        conditions: list[Condition] = self.loaded.encode_texts([request.prompt for request in filled])
        config, family = self.config, self.loaded.family
        grid = SamplingSteps(
            self.loaded,
            self.loaded.model,
            conditions,
            negative=self.empty,
            shape=family.latent_shape(frames=config.frames or 1, height=config.height, width=config.width),
            steps=config.steps,
            guidance=config.guidance,
        )
        scores = self.reward.on(grid) if self.reward is not None else None
        plan = config.steering.plan() if config.steering is not None else RolloutPlan()
        guided = None
        if scores is not None and isinstance(config.steering, FlowNRG):
            guided = RewardGuided(grid, scores, config.steering)
        found = roll_out(
            grid,
            plan=plan,
            seeds=[request.seed for request in filled],
            reward=scores if plan.scored != "nothing" else None,
            predict=guided,
            learn=False,
        )
        if guided is not None:
            guided.log_clamped(config.name)
        return list(self.loaded.decode(found.best[: len(requests)]))
