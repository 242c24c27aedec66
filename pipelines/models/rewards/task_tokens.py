"""A latent reward model on the policy's own backbone (SLRM-like: task tokens in the joint attention's text stream).

Learnable task tokens follow the caption's tokens and pass, with them, through every joint block but the last, which
returns no text; an MLP reads the score from their final states. They share the text stream's projections, where SLRM gives
them their own, and there is no denoising score enhancement. The backbone's pre-training is what makes it work.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from infra.config import ConfigError
from infra.identity import seed_of
from infra.store.files import refuse_unsafe

if TYPE_CHECKING:
    from pipelines.miniature.text import Embedding

BACKBONE, HEAD, SETTINGS = "backbone", "head.safetensors", "reward.json"
SCORED_AT_ONCE = 256


class RewardNetwork(nn.Module):
    """x_t, its caption and its time in; one score out."""

    def __init__(self, transformer: nn.Module, *, task_tokens: int) -> None:
        super().__init__()
        self.transformer: Any = transformer
        width = self.transformer.config.caption_projection_dim
        self.task_tokens = nn.Parameter(0.02 * torch.randn(task_tokens, width))
        self.head = nn.Sequential(
            nn.LayerNorm(task_tokens * width), nn.Linear(task_tokens * width, width), nn.SiLU(), nn.Linear(width, 1)
        )
        self.requires_grad_(True)
        for unread in (self.transformer.transformer_blocks[-1], self.transformer.norm_out, self.transformer.proj_out):
            unread.requires_grad_(False)

    def forward(self, x_t: torch.Tensor, tokens: torch.Tensor, pooled: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Scores float[b] of x_t float[b, c, h, w] at times float[b] in [0, 1]; 1 is noise."""
        inner = self.transformer
        pictures = inner.pos_embed(x_t).contiguous()
        time = inner.time_text_embed(1000 * t, pooled)
        words = inner.context_embedder(tokens)
        text = torch.cat([words, self.task_tokens.expand(len(x_t), -1, -1)], dim=1)
        for block in inner.transformer_blocks[:-1]:
            text, pictures = block(hidden_states=pictures, encoder_hidden_states=text, temb=time)
        return self.head(text[:, words.shape[1] :].flatten(1)).squeeze(1)


class RewardModel:
    """A reward network with the text encoder it was trained with, ready to score."""

    def __init__(self, pipeline: Any, network: RewardNetwork) -> None:
        self.pipeline = pipeline
        self.network = network

    def conditions(self, texts: Sequence[str]) -> Embedding:
        """The embeddings of texts."""
        return self.pipeline.encode(list(texts))

    @torch.no_grad()
    def score(self, pictures: np.ndarray | torch.Tensor, texts: Sequence[str], t: float) -> torch.Tensor:
        """Scores float[b]. Pictures uint8[b, h, w, 3] are first noised to time t, one noise a text; a tensor is x_t."""
        if len(pictures) != len(texts):
            raise ConfigError(f"{len(pictures)} pictures but {len(texts)} texts; give each picture its prompt")
        if isinstance(pictures, np.ndarray):
            pictures = _noised(pictures, texts, t=t)
        device = next(self.network.parameters()).device
        found = []
        for start in range(0, len(texts), SCORED_AT_ONCE):
            part = slice(start, start + SCORED_AT_ONCE)
            condition, x_t = self.conditions(texts[part]), pictures[part].to(device)
            times = torch.full((len(x_t),), t, device=device)
            found.append(self.network(x_t, condition.tokens, condition.pooled, times))
        return torch.cat(found).float().cpu()

    def save(self, folder: Path) -> None:
        """The backbone as a diffusers folder, the head as safetensors."""
        from safetensors.torch import save_file

        self.pipeline.save_pretrained(folder / BACKBONE, safe_serialization=True)
        head = {name: value for name, value in self.network.state_dict().items() if not name.startswith("transformer.")}
        save_file({name: value.contiguous() for name, value in head.items()}, folder / HEAD)
        (folder / SETTINGS).write_text(json.dumps({"task_tokens": len(self.network.task_tokens)}))


def build_reward(policy: Path, *, task_tokens: int, device: torch.device) -> RewardModel:
    """An untrained head on the backbone of a generator's folder."""
    from pipelines.miniature.pipeline import load_pipeline

    pipeline = load_pipeline(policy, device=str(device))
    return RewardModel(pipeline, RewardNetwork(pipeline.transformer, task_tokens=task_tokens).to(device))


def load_reward(folder: Path, *, device: str = "cpu") -> RewardModel:
    """What `RewardModel.save` wrote."""
    from safetensors.torch import load_file

    refuse_unsafe(folder)
    settings = json.loads((folder / SETTINGS).read_text())
    model = build_reward(folder / BACKBONE, task_tokens=settings["task_tokens"], device=torch.device(device))
    head = load_file(folder / HEAD)
    _, strange = model.network.load_state_dict(head, strict=False)
    if strange:
        raise ConfigError(f"{folder / HEAD} holds {strange[0]!r}, which this reward model has not; train it again")
    model.network.requires_grad_(False).eval()
    return model


def _noised(pictures: np.ndarray, texts: Sequence[str], *, t: float) -> torch.Tensor:
    """One noise a text, so that two pictures of one prompt are compared under the same."""
    from pipelines.miniature.pipeline import to_model

    data = to_model(pictures)
    seeds = [seed_of("reward noise", text) for text in texts]
    noise = torch.stack([torch.randn(data.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    return (1 - t) * data + t * noise
