"""The policy: a generator that is being trained, with its frozen reference, as an adapter or in full."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from infra.config import Config
from infra.lazy import lazy

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pipelines.models.miniature.text import Embedding
else:
    torch = lazy("torch")

LORA_FILE = "pytorch_lora_weights.safetensors"


class LoRA(Config):
    """Low-rank additions to the attention's projections; the reference is the model without them."""

    kind: Literal["lora"] = "lora"
    rank: int = Field(32, ge=1)
    """Rank of each addition; papers use 64 for models a thousand times larger."""
    alpha: float = Field(64.0, gt=0)
    """Scale: an addition is multiplied by alpha / rank."""
    targets: tuple[str, ...] = (
        "to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out",
    )  # fmt: skip
    """Names of the linear layers that get one."""


class Full(Config):
    """Every parameter of the denoiser; the reference is a frozen copy."""

    kind: Literal["full"] = "full"


Adapter = Annotated[LoRA | Full, Field(discriminator="kind")]
"""What of the policy is trained: the type of an option."""


class Policy:
    """A generator's pipeline loaded for training. Only the denoiser is trained; texts are encoded once."""

    def __init__(self, folder: Path, *, adapter: LoRA | Full, device: torch.device) -> None:
        from pipelines.models.miniature.pipeline import load_pipeline

        self.pipeline = load_pipeline(folder, device=str(device))
        self.model: nn.Module = self.pipeline.transformer
        self.adapter = adapter
        self.device = device
        self.frozen: nn.Module | None = None
        if isinstance(adapter, LoRA):
            self.pipeline.transformer.add_adapter(_lora_config(adapter))
        else:
            self.frozen = copy.deepcopy(self.model)
            self.model.requires_grad_(True)

    def conditions(self, texts: Sequence[str]) -> Embedding:
        """The embeddings of texts."""
        return self.pipeline.encode(list(texts))

    def data(self, pictures: np.ndarray) -> torch.Tensor:
        """uint8[b, h, w, 3] as the x_0 the denoiser works on."""
        from pipelines.models.miniature.pipeline import to_model

        return to_model(pictures).to(self.device)

    def velocity(self, model: nn.Module, x_t: torch.Tensor, *, condition: Embedding, t: torch.Tensor) -> torch.Tensor:
        """The policy's velocity; `model` is its denoiser as a training engine wrapped it."""
        return model(x_t, condition.tokens, condition.pooled, 1000 * t, return_dict=False)[0]

    def reference(self, model: nn.Module, x_t: torch.Tensor, *, condition: Embedding, t: torch.Tensor) -> torch.Tensor:
        """The reference's velocity, without gradient."""
        with torch.no_grad():
            if self.frozen is not None:
                return self.velocity(self.frozen, x_t, condition=condition, t=t)
            self.pipeline.transformer.disable_adapters()
            try:
                return self.velocity(model, x_t, condition=condition, t=t)
            finally:
                self.pipeline.transformer.enable_adapters()

    def export(self, parameters: dict[str, torch.Tensor], folder: Path) -> None:
        """Writes what diffusers loads without Salon: an adapter with its rank and alpha, or the whole pipeline's folder."""
        if isinstance(self.adapter, LoRA):
            _save_lora(self.pipeline, parameters, folder)
            return
        from pipelines.models.miniature.pipeline import load_pipeline

        # A copy from disk: under ZeRO 3 this rank's own model holds a share of its parameters only.
        whole = load_pipeline(Path(self.pipeline.config._name_or_path))  # pyright: ignore[reportAttributeAccessIssue]
        whole.transformer.load_state_dict(parameters, strict=False)
        whole.save_pretrained(folder, safe_serialization=True)


def _lora_config(adapter: LoRA):
    from peft import LoraConfig

    return LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,  # pyright: ignore[reportArgumentType]
        target_modules=list(adapter.targets),
        init_lora_weights="gaussian",
    )


def _save_lora(pipeline, parameters: dict[str, torch.Tensor], folder: Path) -> None:
    from diffusers import StableDiffusion3Pipeline
    from peft import get_peft_model_state_dict

    transformer = pipeline.transformer
    StableDiffusion3Pipeline.save_lora_weights(
        str(folder),
        transformer_lora_layers=get_peft_model_state_dict(transformer, state_dict=parameters),  # pyright: ignore[reportArgumentType]
        # Without it diffusers reloads every adapter with alpha = rank.
        transformer_lora_adapter_metadata=transformer.peft_config["default"].to_dict(),
        safe_serialization=True,
    )
