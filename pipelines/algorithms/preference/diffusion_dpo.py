"""Diffusion-DPO on the errors of noise or v predictions (Wallace et al., 2024, eq. 14).

The preference logit has the factor 1/2 of the paper's public code; one public script drops it, and its 2500 is 5000 here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from jaxtyping import Float
from pydantic import Field

from infra.lazy import lazy
from pipelines.algorithms.preference.dpo import DPO
from pipelines.algorithms.preference.pairwise import DIFFUSION

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")


class DiffusionDPO(DPO):
    """DPO on the errors of diffusion models."""

    predictions: ClassVar[frozenset[str]] = DIFFUSION

    method: Literal["diffusion_dpo"] = "diffusion_dpo"
    beta: float = Field(5000.0, gt=0, allow_inf_nan=False)
    """KL weight on mean errors: 2000-5000 from pre-trained models; ViPO takes 500 (SD1.5) and 1000 (SDXL) after SFT."""

    def beta_at(self, t: Float[torch.Tensor, " pairs"]) -> Float[torch.Tensor, " pairs"]:
        """The same at every time."""
        return torch.full_like(t, self.beta)
