"""The network of SLRM: the generator's own forward pass with task tokens, a head on their last states, its own error."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import nn

from infra.config import ConfigError
from infra.identity import seed_of
from pipelines.algorithms.diffusion.path import PathSample, per_sample_error
from pipelines.algorithms.reward.enhanced import BINS, bin_of, log_positive
from pipelines.models.adapter import LoRA, peft_config, refuse_unmatched
from pipelines.models.families.base import Condition
from pipelines.models.families.loaded import DenoiserCall, LoadedFamily
from pipelines.models.rewards.network import RewardNetwork
from pipelines.models.rewards.slrm_places import own_projections, place_of

if TYPE_CHECKING:
    from pipelines.models.rewards.slrm import SLRM

SIMILARITY_WIDTH = 768


class SLRMNetwork(RewardNetwork):
    """x_t, its condition, its time and the target in; eta log S^ of every dimension out, in fp32."""

    usual_errors: torch.Tensor
    """float[BINS]: the untouched generator's mean error by bins of t, where the enhancement is relative."""

    def __init__(self, generator: LoadedFamily, settings: SLRM) -> None:
        super().__init__()
        self.generator, self.settings = generator, settings
        self.transformer: Any = generator.model
        dimensions, with_tokens = len(settings.dimensions), settings.readout == "task_tokens"
        if settings.backbone == "random":
            _randomise(self.transformer)
        enhanced = settings.enhancement is not None
        count = dimensions * settings.task_tokens if with_tokens else 0
        self.place = place_of(generator.family.name, self.transformer, count=count, velocity=enhanced or not with_tokens)
        self._prepare_backbone(generator)
        width = self.place.width
        if with_tokens:
            self.task_tokens = nn.Parameter(0.02 * torch.randn(count, width))
            self.place.tokens = self.task_tokens
            self.heads = nn.ModuleList(_head(settings.task_tokens * width, width) for _ in range(dimensions))
            if settings.projections == "own":
                self.projections = own_projections(self.place)
        else:
            self.of_picture = nn.ModuleList(nn.Linear(width, SIMILARITY_WIDTH, bias=False) for _ in range(dimensions))
            self.of_text = nn.ModuleList(nn.Linear(width, SIMILARITY_WIDTH, bias=False) for _ in range(dimensions))
            self.scale = nn.Parameter(torch.ones(dimensions))
        if not enhanced:  # they make a prediction out of the picture's stream, which nothing reads
            for unread in (self.transformer.norm_out, self.transformer.proj_out):
                unread.requires_grad_(False)
        if enhanced and settings.enhancement is not None and settings.enhancement.scale == "relative":
            self.register_buffer("usual_errors", torch.full((BINS,), float("nan")))
            self.constants = ("usual_errors",)

    @property
    def reads_target(self) -> bool:
        return self.settings.enhancement is not None

    def forward(
        self,
        x_t: Float[torch.Tensor, "batch *shape"],
        *,
        t: Float[torch.Tensor, " batch"],
        condition: Condition,
        target: Float[torch.Tensor, "batch *shape"] | None = None,
    ) -> Float[torch.Tensor, "batch dimensions"]:
        """eta log S^ of latents at times t in [0, 1], where 1 is noise; higher is better.

        ConfigError without a `target` where the score is enhanced: the model's own prediction says nothing of itself.
        """
        enhancement = self.settings.enhancement
        if enhancement is not None and target is None:
            raise ConfigError(
                "slrm: the score contains the denoising error, so it needs what the denoiser should predict; give a target "
                "(known, generator or predicted), or train the model with enhancement off"
            )
        prediction = self._predict(x_t, t, condition)
        raw = self._tokens_read() if self.settings.readout == "task_tokens" else self._similarity(condition)
        self.place.text = self.place.picture = None
        logs = log_positive(raw, form=self.settings.positive)
        if enhancement is not None and target is not None:
            usual = self.usual_errors[bin_of(t).to(self.usual_errors.device)] if self.constants else None
            penalty = enhancement.penalty(per_sample_error(prediction, target=target), usual=usual)
            logs = logs - penalty[:, None]
        return self.settings.eta * logs

    @torch.no_grad()
    def calibrate(self, points: Iterable[tuple[PathSample, Condition]]) -> None:
        """e_bar: the mean error of the generator without task tokens, by bins of t."""
        if not self.constants:
            return
        sums, counts = torch.zeros(BINS, dtype=torch.float64), torch.zeros(BINS, dtype=torch.float64)
        self.place.active = False
        try:
            for sample, condition in points:
                prediction = self._predict(sample.x_t, sample.t, condition)
                errors = per_sample_error(prediction, target=sample.target).double().cpu()
                bins = bin_of(sample.t).cpu()
                sums.index_add_(0, bins, errors)
                counts.index_add_(0, bins, torch.ones_like(errors))
        finally:
            self.place.active = True
            self.place.text = self.place.picture = None
        self.usual_errors.copy_(sums / counts)

    def _predict(self, x_t: torch.Tensor, t: torch.Tensor, condition: Condition) -> torch.Tensor:
        """The denoiser's prediction; the streams that are read are in `place` afterwards."""
        call = DenoiserCall(x_t, self.generator.path.timesteps(t), self.place.condition(condition))
        self.place.listening = True
        try:
            return self.generator.denoise(self.transformer, call)
        finally:
            self.place.listening = False

    def _tokens_read(self) -> Float[torch.Tensor, "batch dimensions"]:
        """The heads' output, one for each dimension's tokens."""
        groups = self.place.states().to(self.task_tokens.dtype).chunk(len(self.heads), dim=1)
        return torch.cat([head(states.flatten(1)) for head, states in zip(self.heads, groups, strict=True)], dim=1)

    def _similarity(self, condition: Condition) -> Float[torch.Tensor, "batch dimensions"]:
        """exp(scale) cos of the mean picture token and the mean text token, in one space for each dimension (eq. 4)."""
        pictures, words = self.place.picture, self.place.text
        if pictures is None or words is None:
            raise RuntimeError("the denoiser's last block was not called")
        mask = condition.get("mask")
        weight = torch.ones(words.shape[:2], device=words.device) if mask is None else mask.to(words.device).float()
        text = (words * weight[..., None]).sum(1) / weight.sum(1, keepdim=True)
        text, picture = text.to(self.scale.dtype), pictures.mean(1).to(self.scale.dtype)
        pairs = zip(self.of_picture, self.of_text, strict=True)
        cosines = [nn.functional.cosine_similarity(one(picture), other(text), dim=1) for one, other in pairs]
        return torch.exp(self.scale) * torch.stack(cosines, dim=1)

    def _prepare_backbone(self, generator: LoadedFamily) -> None:
        """What of the generator is trained; hooks are registered after low-rank additions, which replace layers."""
        adapter = self.settings.adapter
        if isinstance(adapter, LoRA):
            targets = adapter.targets_of(generator.family)
            refuse_unmatched(self.transformer, targets)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Already found a `peft_config`")
                self.transformer.add_adapter(peft_config(adapter, targets=targets), adapter_name="default")
        else:
            self.transformer.requires_grad_(True)
        self.place.register()


def _head(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(inputs), nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, 1))


def _randomise(transformer: Any) -> None:
    """Other weights, as the class draws them, from a fixed seed: the same on every rank."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of("random backbone") % 2**32)
        fresh = type(transformer).from_config(transformer.config)
    transformer.load_state_dict(fresh.state_dict())
