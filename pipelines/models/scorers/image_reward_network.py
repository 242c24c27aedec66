"""ImageReward's network (Xu et al., 2023): BLIP's picture encoder, its text encoder that looks at the picture, a head.

A port to transformers' own BLIP: the text encoder reads both ways and attends to every patch of the picture; its state at
the first token goes through the linear head. A folder holds config.json (a BlipConfig), model.safetensors and the tokenizer
of bert-base-uncased.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.config import ConfigError
from infra.lazy import lazy
from infra.store.files import refuse_unsafe
from pipelines.models.exact import load_exactly
from pipelines.models.scorers.aesthetic import read_tensors
from pipelines.models.scorers.linear_head import apply_head, linear_head

if TYPE_CHECKING:
    import torch
    from torch import nn
else:
    torch = lazy("torch")

WEIGHTS = "model.safetensors"


def published_config() -> dict[str, Any]:
    """Fields of the BlipConfig of ImageReward-v1.0: ViT-L/16 at 224 px and a text encoder as large as BERT-base."""
    text = {
        "vocab_size": 30524, "hidden_size": 768, "encoder_hidden_size": 1024, "intermediate_size": 3072,
        "num_hidden_layers": 12, "num_attention_heads": 12, "max_position_embeddings": 512, "layer_norm_eps": 1e-12,
        "is_decoder": True,  # in transformers' BLIP this is what gives a layer its attention to the picture
    }  # fmt: skip
    vision = {
        "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
        "image_size": 224, "patch_size": 16, "layer_norm_eps": 1e-6,
    }  # fmt: skip
    return {"text_config": text, "vision_config": vision}


def build(config: Any) -> nn.ModuleDict:
    """vision_model, text_encoder and mlp with random weights; config: a BlipConfig."""
    from transformers.models.blip.modeling_blip import BlipVisionModel
    from transformers.models.blip.modeling_blip_text import BlipTextModel

    parts = {
        "vision_model": BlipVisionModel(config.vision_config),
        "text_encoder": BlipTextModel(config.text_config, add_pooling_layer=False),
        "mlp": linear_head(config.text_config.hidden_size),
    }
    return torch.nn.ModuleDict(parts)


def load_network(folder: Path, *, dtype: torch.dtype, device: str) -> tuple[nn.ModuleDict, Any]:
    """(network for inference, its BlipConfig); raises ConfigError unless the file fills the network exactly."""
    from transformers import BlipConfig

    refuse_unsafe(folder)
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"{folder} has no config.json; convert the published file: python -m pipelines.models.scorers.convert"
        )
    config = BlipConfig.from_pretrained(folder, local_files_only=True)
    network = build(config)
    load_exactly(network, read_tensors(folder / WEIGHTS), source=str(folder / WEIGHTS))
    return network.to(device, dtype).eval().requires_grad_(False), config


def raw_reward(network: nn.ModuleDict, pixels: torch.Tensor, *, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """float32[n] before normalisation; pixels: float[n, 3, size, size]; tokens, mask: int[n, length]."""
    seen = network["vision_model"](pixels).last_hidden_state
    read = network["text_encoder"](
        tokens,
        attention_mask=mask,
        encoder_hidden_states=seen,
        encoder_attention_mask=torch.ones(seen.shape[:-1], dtype=torch.long, device=seen.device),
    ).last_hidden_state
    head = network["mlp"]
    assert isinstance(head, torch.nn.ModuleDict)
    return apply_head(head.float(), read[:, 0].float())
