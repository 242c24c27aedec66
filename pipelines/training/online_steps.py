"""The sampler's steps for training: with a gradient where it is wanted, and a count of the forwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from infra.lazy import lazy
from pipelines.models.families.steps import SamplingSteps, rows_of

if TYPE_CHECKING:
    import torch

    from pipelines.models.families.base import Condition
else:
    torch = lazy("torch")


class TrainingSteps(SamplingSteps):
    """`SamplingSteps` whose prediction without the text carries a gradient only where `free_gradient` says so."""

    def __init__(self, *given: Any, free_gradient: bool, **options: Any) -> None:
        super().__init__(*given, **options)
        self.free_gradient = free_gradient
        self.forwards = 0
        """Latents that a denoiser was asked about."""

    def at(self, x: torch.Tensor, timestep: torch.Tensor, *, prompts: torch.Tensor) -> torch.Tensor:
        """See `SamplingSteps`; `timestep` is one for all rows, or one per row."""
        times = timestep.to(x.device).expand(len(x))
        conditioned = self._asked(x, times, rows_of(self.condition, prompts))
        if self.free is None:
            return conditioned
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.free_gradient):
            free = self._asked(x, times, rows_of(self.free, prompts))
        return self.loaded.guided(conditioned, free, guidance=self.guidance)

    def _asked(self, x: torch.Tensor, times: torch.Tensor, condition: Condition) -> torch.Tensor:
        self.forwards += len(x)
        return super()._asked(x, times, condition)
