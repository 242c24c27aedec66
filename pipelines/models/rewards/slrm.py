"""SLRM: the whole generator as a discriminator of preferences, with task tokens and denoising score enhancement.

Learnable task tokens pass through the generator's blocks beside its own tokens, with query, key and value projections of
their own (eq. 5); everything else of their stream they share. A head makes a positive score of their last states, and the
generator's denoising error lowers it (`algorithms.reward.enhanced`). Where the paper is silent:

* The last block of SD3 returns no text stream, so the tokens are read after the last but one; the last block still runs
  for the velocity. Everywhere else they are read after the last block.
* The projections start as copies of those that the stream has (the paper says nothing of pre-training); the first step is
  then that of the task-token model.
* In FLUX's single blocks text and picture share all projections, and so do the task tokens.
* Wan has no text stream: its task tokens stand at the end of the video's, without a rotary phase.
* With several dimensions each has its own tokens and head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from infra.config import ConfigError
from infra.lazy import lazy
from pipelines.algorithms.reward.enhanced import Enhancement, Positive
from pipelines.models.adapter import Adapter, Full, LoRA
from pipelines.models.families.base import Family
from pipelines.models.rewards.reward import RewardModel

if TYPE_CHECKING:
    import torch

    from pipelines.models.rewards.slrm_network import SLRMNetwork
else:
    torch = lazy("torch")

FAMILIES = ("sd3", "miniature", "flux", "qwen-image", "wan")


class SLRM(RewardModel):
    """Needs a transformer whose blocks have a place for more tokens: SD3, SD3.5, FLUX, Qwen-Image, or Wan 2.1."""

    kind: Literal["slrm"] = "slrm"
    readout: Literal["task_tokens", "similarity"] = "task_tokens"
    """"similarity" is the ablation without task tokens: the cosine of the mean picture token and the mean text token."""
    task_tokens: int = Field(1, ge=1, le=64)
    """Number of task tokens of each dimension."""
    projections: Literal["own", "shared"] = "own"
    """Whether the task tokens have query, key and value projections of their own in every block."""
    enhancement: Enhancement | None = Enhancement()
    """How the denoising error lowers the score; None: not at all."""
    positive: Positive = "exp"
    """How the head's output becomes a positive score."""
    eta: float = Field(1.0, gt=0)
    """The reward is eta log S^; the paper does not give its value. With S = exp it only rescales the head and rho."""
    adapter: Adapter = Full()
    """What of the generator is trained beside tokens, projections and head: all of it, or low-rank additions."""
    backbone: Literal["generator", "random"] = "generator"
    """"random" is the ablation that begins with random weights in the place of the generator's."""

    @model_validator(mode="after")
    def _possible(self) -> SLRM:
        if self.backbone == "random" and isinstance(self.adapter, LoRA):
            raise ConfigError("slrm: low-rank additions to random weights learn nothing of use; train all of them (full)")
        return self

    def refuse(self, backbone: Family) -> None:
        from pipelines.models.rewards.task_tokens import is_joint

        if backbone.name not in FAMILIES or (backbone.joint_text and not is_joint(backbone)):
            raise ConfigError(
                f"slrm: the denoiser of this {backbone.name} generator has no place for task tokens; choose SD3 or SD3.5, "
                "FLUX, Qwen-Image or Wan 2.1 as the policy of the reward model, or a reward model that reads features "
                "of any generator (lrm)"
            )

    def build(self, backbone: Family, *, device: torch.device | str) -> SLRMNetwork:
        from pipelines.models.rewards.slrm_network import SLRMNetwork

        self.refuse(backbone)
        generator = backbone.load(parts="denoiser", device=device, dtype=torch.float32)
        return SLRMNetwork(generator, self).to(device)
