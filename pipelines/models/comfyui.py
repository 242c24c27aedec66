"""A LoRA under the names that ComfyUI reads, each layer with its own alpha.

ComfyUI adds alpha / rank * up @ down to a layer's weight and takes alpha = rank where a file names none, so alpha is always
written. It knows (comfy/lora.py, `model_lora_keys_unet`):
* U-Nets (sd15, sdxl) by kohya's names: `lora_unet_` and the layer's name in diffusers with underscores;
* Stable Diffusion 3, FLUX, Qwen-Image and Z-Image by `transformer.` and the layer's name in diffusers;
* Wan by `diffusion_model.` and the layer's name in Wan's own code.
HunyuanVideo has query, key and value in one layer there, so that its LoRA has no second form.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from infra.lazy import lazy

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")

COMFYUI_FILE = "comfyui_lora.safetensors"
A, B = ".lora_A.weight", ".lora_B.weight"

Names = Literal["kohya", "diffusers", "wan"]
"""By which of the three conventions above ComfyUI knows the layers of a family."""
_WAN = (
    (r"\battn1\.to_(q|k|v)$", r"self_attn.\1"),
    (r"\battn1\.to_out\.0$", "self_attn.o"),
    (r"\battn2\.to_(q|k|v)$", r"cross_attn.\1"),
    (r"\battn2\.to_out\.0$", "cross_attn.o"),
    (r"\battn2\.add_(k|v)_proj$", r"cross_attn.\1_img"),
    (r"\bffn\.net\.0\.proj$", "ffn.0"),
    (r"\bffn\.net\.2$", "ffn.2"),
    (r"^condition_embedder\.(time|text)_embedder\.linear_1$", r"\1_embedding.0"),
    (r"^condition_embedder\.(time|text)_embedder\.linear_2$", r"\1_embedding.2"),
    (r"^condition_embedder\.time_proj$", "time_projection.1"),
    (r"^proj_out$", "head.head"),
)  # diffusers' names to Wan's own


def comfyui_layers(layers: dict[str, torch.Tensor], *, names: Names, alpha: float) -> dict[str, torch.Tensor]:
    """`LAYER.lora_A.weight` and `LAYER.lora_B.weight`, named as diffusers names layers, under ComfyUI's names with alpha.

    `alpha` is the LoRA's own, not divided by its rank. Raises ValueError for anything that is neither A nor B.
    """
    found: dict[str, torch.Tensor] = {}
    for key, value in layers.items():
        if not key.endswith((A, B)):
            raise ValueError(f"{key!r} is no half of a low-rank addition")
        layer, half = key[: -len(A)], key[-len(A) :]
        name, down, up = _names(layer, names=names)
        found[name + (down if half == A else up)] = value.contiguous()
        found[f"{name}.alpha"] = torch.tensor(float(alpha))
    return found


def write_comfyui(layers: dict[str, torch.Tensor], *, names: Names, alpha: float, folder: Path) -> Path:
    """Writes `comfyui_lora.safetensors` into a folder and returns its path."""
    from safetensors.torch import save_file

    path = folder / COMFYUI_FILE
    save_file(comfyui_layers(layers, names=names, alpha=alpha), path, metadata={"format": "pt"})
    return path


def _names(layer: str, *, names: Names) -> tuple[str, str, str]:
    """A layer's name, and what its two halves end in."""
    if names == "kohya":
        return f"lora_unet_{layer.replace('.', '_')}", ".lora_down.weight", ".lora_up.weight"
    if names == "diffusers":
        return f"transformer.{layer}", A, B
    for pattern, name in _WAN:
        layer, changed = re.subn(pattern, name, layer)
        if changed:
            break
    return f"diffusion_model.{layer}", A, B
