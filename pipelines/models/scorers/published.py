"""From the names that published scorers have in other libraries to those of transformers and of this package.

Pure renaming and splitting of tensors; `convert` reads and writes the files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from infra.config import ConfigError
from infra.lazy import lazy
from pipelines.models.scorers.linear_head import NAMES

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")

Tensors = Mapping[str, "torch.Tensor"]

LAYER = {
    "ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2",
}  # fmt: skip
"""Parts of a layer: OpenCLIP's names and transformers'."""
TEXT = {
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "logit_scale": "logit_scale",
}
VISION = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
}
TRANSPOSED = {"text_projection": "text_projection.weight", "visual.proj": "visual_projection.weight"}
BLOCKS = {"transformer.resblocks.": "text_model", "visual.transformer.resblocks.": "vision_model"}
UNUSED = ("attn_mask",)
BLIP_VISION = (
    ("blip.visual_encoder.cls_token", "vision_model.embeddings.class_embedding"),
    ("blip.visual_encoder.pos_embed", "vision_model.embeddings.position_embedding"),
    ("blip.visual_encoder.patch_embed.proj.", "vision_model.embeddings.patch_embedding."),
    ("blip.visual_encoder.norm.", "vision_model.post_layernorm."),
    ("blip.visual_encoder.blocks.", "vision_model.encoder.layers."),
    (".norm1.", ".layer_norm1."),
    (".norm2.", ".layer_norm2."),
    (".attn.qkv.", ".self_attn.qkv."),
    (".attn.proj.", ".self_attn.projection."),
)
"""Beginnings and parts of names of BLIP's picture encoder, in the order in which they are replaced."""
BLIP_UNUSED = ("blip.vision_proj.", "blip.text_proj.", "blip.text_encoder.embeddings.position_ids")
"""Parts of BLIP that ImageReward's file holds and its score does not read."""


def clip_from_open_clip(tensors: Tensors) -> dict[str, torch.Tensor]:
    """Tensors of a CLIPModel from those of an OpenCLIP model; raises ConfigError for a name that has no place."""
    found: dict[str, torch.Tensor] = {}
    for name, value in tensors.items():
        if name in UNUSED:
            continue
        if name in TRANSPOSED:
            found[TRANSPOSED[name]] = value.T.contiguous()
        elif name in TEXT or name in VISION:
            found[{**TEXT, **VISION}[name]] = value
        else:
            found.update(_layer_of_open_clip(name, value))
    return found


def _layer_of_open_clip(name: str, value: torch.Tensor) -> dict[str, torch.Tensor]:
    start = next((start for start in BLOCKS if name.startswith(start)), None)
    if start is None:
        raise ConfigError(f"{name!r} is no tensor of a CLIP of OpenCLIP with the plain architecture (ViT-B, -L, -H)")
    number, _, rest = name.removeprefix(start).partition(".")
    layer = f"{BLOCKS[start]}.encoder.layers.{number}"
    part, _, kind = rest.rpartition(".")
    if rest in ("attn.in_proj_weight", "attn.in_proj_bias"):  # queries, keys and values, one above the other
        kind = rest.rpartition("_")[2]
        pieces = zip("qkv", value.chunk(3), strict=True)
        return {f"{layer}.self_attn.{piece}_proj.{kind}": tensor.contiguous() for piece, tensor in pieces}
    if part not in LAYER:
        raise ConfigError(f"{name!r} has no place in a CLIPModel")
    return {f"{layer}.{LAYER[part]}.{kind}": value}


def clip_config(tensors: Tensors, *, text_heads: int, vision_heads: int, activation: str) -> Any:
    """The CLIPConfig whose model has these sizes (of OpenCLIP's tensors); heads are not to be seen in tensors."""
    from transformers import CLIPConfig

    words, width = tensors["token_embedding.weight"].shape
    shared: dict[str, Any] = {"projection_dim": tensors["text_projection"].shape[1], "hidden_act": activation}
    text: dict[str, Any] = {
        "vocab_size": words, "hidden_size": width, "num_attention_heads": text_heads,
        "intermediate_size": tensors["transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
        "num_hidden_layers": _layers(tensors, "transformer.resblocks."),
        "max_position_embeddings": tensors["positional_embedding"].shape[0],
        "bos_token_id": words - 2, "eos_token_id": words - 1, "pad_token_id": words - 1,
    }  # fmt: skip
    patches, _, patch, _ = tensors["visual.conv1.weight"].shape
    vision: dict[str, Any] = {
        "hidden_size": patches, "patch_size": patch, "num_attention_heads": vision_heads,
        "intermediate_size": tensors["visual.transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
        "num_hidden_layers": _layers(tensors, "visual.transformer.resblocks."),
        "image_size": patch * round((tensors["visual.positional_embedding"].shape[0] - 1) ** 0.5),
    }  # fmt: skip
    sizes: dict[str, Any] = {"text_config": {**text, **shared}, "vision_config": {**vision, **shared}}
    return CLIPConfig(**sizes, projection_dim=shared["projection_dim"])


def _layers(tensors: Tensors, start: str) -> int:
    return 1 + max(int(name.removeprefix(start).split(".")[0]) for name in tensors if name.startswith(start))


def image_reward_from_published(tensors: Tensors) -> dict[str, torch.Tensor]:
    """Tensors of `image_reward_network` from those of ImageReward.pt."""
    found: dict[str, torch.Tensor] = {}
    for name, value in tensors.items():
        if name.startswith(BLIP_UNUSED):
            continue
        if name.startswith("blip.visual_encoder."):
            for old, new in BLIP_VISION:
                name = name.replace(old, new)
        else:
            name = name.removeprefix("blip.")
        found[name] = value
    return found


def head_from_published(tensors: Tensors) -> dict[str, torch.Tensor]:
    """The aesthetic predictor's tensors, whose names are those of `linear_head` already."""
    missing = [name for name in NAMES if name not in tensors]
    if missing or len(tensors) != len(NAMES):
        raise ConfigError(f"the file holds {sorted(tensors)}, not the five linear layers {', '.join(NAMES)}")
    return dict(tensors)
