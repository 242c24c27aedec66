"""The task-token reward model: learnable tokens in the text stream of a joint transformer, an MLP on their last states.

What it shares with SLRM: the generator's own denoiser as backbone, task tokens beside the caption's, an MLP head, training
at every noise level. What it lacks: projections of the task tokens' own (here they pass through the text stream's), the
last block, denoising score enhancement and positive scores. It is therefore not SLRM and has its own name.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from infra.config import ConfigError
from infra.lazy import lazy
from infra.store.files import Folder
from pipelines.models.families.base import Family
from pipelines.models.rewards.reward import RewardModel

if TYPE_CHECKING:
    import torch

    from pipelines.models.rewards.task_token_network import TaskTokenNetwork
else:
    torch = lazy("torch")

JOINT_WIDTH = "caption_projection_dim"  # a setting that only joint transformers of SD3's kind have


def is_joint(backbone: Family) -> bool:
    """Whether the denoiser is a joint transformer of SD3's kind, as far as can be known before it is loaded."""
    config = backbone.weights.local / backbone.part / "config.json" if isinstance(backbone.weights, Folder) else None
    if backbone.joint_text and config is not None and config.is_file():
        return JOINT_WIDTH in json.loads(config.read_text())
    return backbone.joint_text


class TaskTokenReward(RewardModel):
    """Needs a joint transformer of Stable Diffusion 3's kind: its blocks carry the text as a stream of tokens."""

    kind: Literal["task_tokens"] = "task_tokens"
    task_tokens: int = Field(2, ge=1, le=64)
    """Number of learnable tokens that are appended to the tokens of the caption."""

    def refuse(self, backbone: Family) -> None:
        if not is_joint(backbone):
            raise ConfigError(
                f"task tokens need a joint transformer of Stable Diffusion 3's kind, and this {backbone.name} generator "
                "has another denoiser; choose an SD3 or SD3.5 generator as the policy of the reward model"
            )

    def build(self, backbone: Family, *, device: torch.device | str) -> TaskTokenNetwork:
        from pipelines.models.rewards.task_token_network import TaskTokenNetwork

        self.refuse(backbone)
        generator = backbone.load(parts="denoiser", device=device, dtype=torch.float32)
        network = TaskTokenNetwork(generator, task_tokens=self.task_tokens, dimensions=len(self.dimensions))
        return network.to(device)
