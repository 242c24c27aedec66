"""Tiny random models of the classes that published scorers have, saved as those are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from tests.support.tiny import clip_tokenizer

SIZE = 32


def write_clip(folder: Path, *, seed: int = 0, layers: int = 2, act: str = "quick_gelu") -> Path:
    """A CLIPModel of 32x32 px pictures with its tokenizer, every weight large enough to matter."""
    from transformers import CLIPConfig, CLIPModel

    tokenizer = clip_tokenizer()
    sizes = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": layers, "num_attention_heads": 2,
        "projection_dim": 24, "hidden_act": act,
    }  # fmt: skip
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = CLIPConfig(
        text_config={**sizes, **ids, "vocab_size": len(tokenizer)},
        vision_config={**sizes, "image_size": SIZE, "patch_size": 8},
        projection_dim=24,
    )
    model = randomised(CLIPModel(config), seed=seed)
    with torch.no_grad():
        model.logit_scale.fill_(4.6)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def randomised(model: torch.nn.Module, *, seed: int) -> torch.nn.Module:
    """Every parameter drawn anew, also those that a class starts at zero, where a wrong name would not be seen."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(0.15 * torch.randn(value.shape, generator=generator))
    return model.eval()


def picture(seed: int, *, height: int = 48, width: int = 40) -> np.ndarray:
    """uint8[height, width, 3] of noise, a few pixels wide."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, size=(-(-height // 4), -(-width // 4), 3), dtype=np.uint8)
    return np.repeat(np.repeat(coarse, 4, 0), 4, 1)[:height, :width]
