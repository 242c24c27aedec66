"""A denoiser's sampling steps one by one: its times, and its guided prediction for any rows of a batch.

`sampling.sample` is the pipeline's whole loop; this is for loops of one's own over the same steps (`models.rollout`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from infra.lazy import lazy
from pipelines.models.families.loaded import DenoiserCall, stack

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pipelines.models.families.base import Condition
    from pipelines.models.families.loaded import LoadedFamily
else:
    torch = lazy("torch")


class SamplingSteps:
    """The grid of a generator's own scheduler, and its prediction there after classifier-free guidance.

    Generators with a table of noise levels step on DDIM's grid, whatever their scheduler: those steps have a stochastic
    form.
    """

    def __init__(
        self,
        loaded: LoadedFamily,
        model: nn.Module,
        conditions: Sequence[Condition],
        *,
        negative: Condition | None,
        shape: Sequence[int],
        steps: int,
        guidance: float,
    ) -> None:
        """`conditions`: one per prompt, unbatched; read alone without `negative` or at a scale without effect."""
        self.loaded, self.model, self.guidance = loaded, model, guidance
        self.shape = tuple(shape)
        self.path = loaded.path
        self.device = next(loaded.model.parameters()).device
        self.timesteps, self.times = self._grid(steps)
        """Timesteps float[steps] that the denoiser is told, and times fp32[steps + 1] from 1 (noise) to 0."""
        self.condition = {name: value.to(self.device) for name, value in stack(conditions).items()}
        self.prompts = len(conditions)
        guided = negative is not None and guidance != loaded.unguided and not loaded.distilled
        free = stack([each | negative for each in conditions]) if guided and negative is not None else None
        self.free = None if free is None else {name: value.to(self.device) for name, value in free.items()}

    def predict(self, x: torch.Tensor, index: int, *, prompts: torch.Tensor) -> torch.Tensor:
        """fp32[rows, *shape] of latents x at step `index`; `prompts` int[rows] says whose each row is."""
        return self.at(x, self.timesteps[index], prompts=prompts)

    def at(self, x: torch.Tensor, timestep: torch.Tensor, *, prompts: torch.Tensor) -> torch.Tensor:
        """The same at a timestep of the denoiser's own scale."""
        times = timestep.to(x.device).expand(len(x))
        conditioned = self._asked(x, times, rows_of(self.condition, prompts))
        if self.free is None:
            return conditioned
        return self.loaded.guided(conditioned, self._asked(x, times, rows_of(self.free, prompts)), guidance=self.guidance)

    def _asked(self, x: torch.Tensor, times: torch.Tensor, condition: Condition) -> torch.Tensor:
        return self.loaded.denoise(self.model, DenoiserCall(x, times, condition, guidance=self.guidance)).float()

    def _grid(self, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
        config = self.loaded.pipeline.scheduler.config
        if self.path.prediction == "flow":
            scheduler = type(self.loaded.pipeline.scheduler).from_config(config)
            self.loaded.set_timesteps(scheduler, steps=steps, shape=self.shape, device=self.device)
            return scheduler.timesteps, scheduler.sigmas.float().to(self.device)
        from diffusers import DDIMScheduler

        scheduler: Any = DDIMScheduler.from_config(config)
        scheduler.set_timesteps(steps, device=self.device)
        levels = scheduler.config["num_train_timesteps"]
        times = (scheduler.timesteps.float() + 0.5) / levels  # the middle of the level: rounding leads to no other
        return scheduler.timesteps, torch.cat([times, times.new_zeros(1)])


def rows_of(condition: Condition, prompts: torch.Tensor) -> Condition:
    """The condition of the prompt of each row."""
    return {name: value[prompts] for name, value in condition.items()}
