"""The plain reading of Flow-DPO's pseudo-code (Liu et al., 2025, appendix C), to measure Salon's step against.

Four forward passes, one a model and a member; the reference is a second model; pictures are decoded and texts are encoded
at every step. Everything else is as good as a careful user would write it: texts are encoded once a batch, the frozen model
records no graph, and the loss is per pair, since the pseudo-code's norm over the batch would mix the pairs.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from peft import LoraConfig
from PIL import Image
from torch import nn
from torch.nn import functional

from pipelines.miniature.family import MiniatureFamily
from pipelines.miniature.pipeline import load_pipeline, to_model
from pipelines.models.adapter import Full, LoRA
from tests.benchmarks.pairs import POLICY, Pairs

LOW, HIGH = 0.25, 0.98  # times, as Salon draws them here


class PlainDPO:
    """A model, a frozen one, and pairs as files."""

    def __init__(self, pairs: Pairs, adapter: LoRA | Full, *, beta: float, clip: float = 1.0) -> None:
        self.pairs, self.beta, self.clip = pairs, beta, clip
        self.pipeline = load_pipeline(POLICY)
        self.model = self.pipeline.transformer
        self.reference = load_pipeline(POLICY).transformer
        if isinstance(adapter, LoRA):
            targets = list(adapter.targets or MiniatureFamily.lora_targets)
            low = LoraConfig(r=adapter.rank, lora_alpha=int(adapter.alpha), target_modules=targets)
            self.model.add_adapter(low)
        else:
            self.model.requires_grad_(True)
        self.trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0)

    def step(self, index: Sequence[int], *, generator: torch.Generator) -> float:
        """One update from these pairs; the loss."""
        x_w, x_l = self.pictures(index)
        timestep = LOW + (HIGH - LOW) * torch.rand(len(x_w), generator=generator)
        noise = torch.randn(x_w.shape, generator=generator)
        loss = self.losses(x_w, x_l, [self.pairs.texts[i] for i in index], noise=noise, timestep=timestep).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(self.trained, self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()

    def pictures(self, index: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Winners and losers float[b, 3, 24, 24], from their files."""
        sides = [[files[i] for i in index] for files in (self.pairs.winners, self.pairs.losers)]
        decoded = [np.stack([np.asarray(Image.open(io.BytesIO(data))) for data in side]) for side in sides]
        return to_model(decoded[0]), to_model(decoded[1])

    def losses(
        self,
        x_w: torch.Tensor,
        x_l: torch.Tensor,
        texts: list[str],
        *,
        noise: torch.Tensor,
        timestep: torch.Tensor,
    ) -> torch.Tensor:
        """The pseudo-code, line by line; float[b]."""
        c = self.pipeline.encode(texts)
        time = timestep.view(-1, 1, 1, 1)
        noisy_x_w = (1 - time) * x_w + time * noise
        noisy_x_l = (1 - time) * x_l + time * noise

        def velocity(model: nn.Module, noisy: torch.Tensor) -> torch.Tensor:
            return model(noisy, c.tokens, c.pooled, 1000 * timestep, return_dict=False)[0]

        velocity_w_pred = velocity(self.model, noisy_x_w)
        velocity_l_pred = velocity(self.model, noisy_x_l)
        velocity_ref_w_pred = velocity(self.reference, noisy_x_w)
        velocity_ref_l_pred = velocity(self.reference, noisy_x_l)
        velocity_w = noise - x_w
        velocity_l = noise - x_l
        w_diff = _error(velocity_w_pred, velocity_w) - _error(velocity_ref_w_pred, velocity_w)
        l_diff = _error(velocity_l_pred, velocity_l) - _error(velocity_ref_l_pred, velocity_l)
        # The pseudo-code's errors are sums: Salon's are means, and beta is for those.
        inside_term = -0.5 * self.beta / x_w[0].numel() * (w_diff - l_diff)
        return -functional.logsigmoid(inside_term)


def _error(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (prediction - target).flatten(1).norm(dim=1).pow(2)
