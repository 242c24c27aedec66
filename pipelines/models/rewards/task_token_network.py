"""The network of the task-token reward model: the denoiser's own forward pass with two hooks."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import nn

from infra.config import ConfigError
from pipelines.models.families.base import Condition
from pipelines.models.families.loaded import DenoiserCall, LoadedFamily
from pipelines.models.rewards.network import RewardNetwork


class TaskTokenNetwork(RewardNetwork):
    """x_t, its condition and its time in; scores out.

    A hook on the text projection appends the task tokens to the caption's; a hook on the last block takes the text stream
    out, task tokens last. The denoiser's last block returns no text and is left out.
    """

    def __init__(self, generator: LoadedFamily, *, task_tokens: int, dimensions: int) -> None:
        super().__init__()
        self.generator = generator
        self.transformer: Any = generator.model
        blocks = self.transformer.transformer_blocks
        if len(blocks) < 2:
            raise ConfigError(f"task tokens need a denoiser of at least 2 blocks, this one has {len(blocks)}")
        self.transformer.transformer_blocks = blocks[:-1]
        width = self.transformer.config.caption_projection_dim
        self.task_tokens = nn.Parameter(0.02 * torch.randn(task_tokens, width))
        self.head = nn.Sequential(
            nn.LayerNorm(task_tokens * width),
            nn.Linear(task_tokens * width, width),
            nn.SiLU(),
            nn.Linear(width, dimensions),
        )
        self.requires_grad_(True)
        # They make a prediction out of the picture's stream, which nothing reads.
        for unread in (self.transformer.norm_out, self.transformer.proj_out):
            unread.requires_grad_(False)
        self._text: torch.Tensor | None = None
        self.transformer.context_embedder.register_forward_hook(self._append)
        self.transformer.transformer_blocks[-1].register_forward_hook(self._take)

    def forward(
        self,
        x_t: Float[torch.Tensor, "batch *shape"],
        *,
        t: Float[torch.Tensor, " batch"],
        condition: Condition,
        target: Float[torch.Tensor, "batch *shape"] | None = None,
    ) -> Float[torch.Tensor, "batch dimensions"]:
        """Scores of latents at times t in [0, 1], where 1 is noise; higher is better. `target` is not read."""
        del target
        self.generator.denoise(self.transformer, DenoiserCall(x_t, self.generator.path.timesteps(t), condition))
        text, self._text = self._text, None
        if text is None:
            raise RuntimeError("the denoiser's last block was not called")
        return self.head(text[:, -len(self.task_tokens) :].flatten(1))

    def _append(self, module: nn.Module, inputs: Any, words: torch.Tensor) -> torch.Tensor:
        return torch.cat([words, self.task_tokens.to(words.dtype).expand(len(words), -1, -1)], dim=1)

    def _take(self, module: nn.Module, inputs: Any, streams: tuple[torch.Tensor, torch.Tensor]) -> None:
        self._text = streams[0]
