"""Tiny random pipelines of clips: Wan 2.1 and 2.2, from a text or from a text and a first frame, and HunyuanVideo."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from support.tiny_text import TEXT_WIDTH, clip, clip_tokenizer, t5, t5_tokenizer

HEADS = {"num_attention_heads": 2, "attention_head_dim": 16}
MEANS, SPREADS = [-0.7571, -0.7089, -0.9113, 0.1075], [2.8184, 1.4541, 2.3275, 2.6558]
PICTURE_WIDTH = 16


def _wan_parts(*, channels: int = 4, shift: float = 3.0, residual: bool = False, **options: Any) -> dict[str, Any]:
    """The components of a Wan pipeline whose denoiser reads so many channels."""
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanTransformer3DModel

    tokenizer = t5_tokenizer()
    transformer = WanTransformer3DModel(
        in_channels=channels,
        out_channels=4,
        text_dim=TEXT_WIDTH,
        freq_dim=16,
        ffn_dim=64,
        num_layers=2,
        rope_max_seq_len=32,
        **HEADS,
        **options,
    )
    wide = {"patch_size": 2, "in_channels": 12, "out_channels": 12, "scale_factor_spatial": 16, "is_residual": True}
    vae = AutoencoderKLWan(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        latents_mean=MEANS,
        latents_std=SPREADS,
        **(wide if residual else {}),
    )
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)
    return {
        "tokenizer": tokenizer,
        "text_encoder": t5(tokenizer, multilingual=True),
        "vae": vae.eval(),
        "scheduler": scheduler,
        "transformer": transformer.eval(),
    }


def wan():
    """Wan 2.1."""
    from diffusers import WanPipeline

    return WanPipeline(**_wan_parts())


def wan_ti2v():
    """Wan 2.2 TI2V-5B, as published."""
    from diffusers import WanPipeline

    return WanPipeline(**_wan_parts(shift=5.0, residual=True), expand_timesteps=True)


def wan_ti2v_from_frame():
    """Wan 2.2 TI2V-5B, as the pipeline that takes a first frame saves it."""
    from diffusers import WanImageToVideoPipeline

    return WanImageToVideoPipeline(**_wan_parts(shift=5.0, residual=True), expand_timesteps=True)


def wan_from_frame():
    """Wan 2.1 image-to-video: the denoiser reads noised latents, a mask and the first frame's latents side by side."""
    from diffusers import WanImageToVideoPipeline
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(
        hidden_size=PICTURE_WIDTH,
        intermediate_size=PICTURE_WIDTH,
        projection_dim=PICTURE_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
    )
    size = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}
    return WanImageToVideoPipeline(
        **_wan_parts(channels=12, image_dim=PICTURE_WIDTH, added_kv_proj_dim=32),
        image_encoder=CLIPVisionModel(config).eval(),
        image_processor=CLIPImageProcessor(**size),
    )


def _llama_tokenizer():
    """Llama's tokenizer over single characters, but for a template's beginning: about 95 tokens, which are cropped."""
    from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
    from transformers import LlamaTokenizerFast

    characters = ["<unk>", "<s>", "</s>", "▁", "\n", *(chr(c) for c in range(33, 127))]
    vocabulary = {piece: number for number, piece in enumerate(characters)}
    tokenizer = LlamaTokenizerFast(vocab=vocabulary, pad_token="</s>", padding_side="right")
    beginning = DEFAULT_PROMPT_TEMPLATE["template"].split("{}")[0]
    count = DEFAULT_PROMPT_TEMPLATE["crop_start"]
    edges = [len(beginning) * number // count for number in range(count + 1)]
    pieces = [beginning[start:end] for start, end in pairwise(edges)]
    tokenizer.add_special_tokens({"additional_special_tokens": [*dict.fromkeys(pieces), "<|eot_id|>"]})
    return tokenizer


def hunyuan_video():
    """HunyuanVideo; its language model's last layers but two are read."""
    from diffusers import (
        AutoencoderKLHunyuanVideo,
        FlowMatchEulerDiscreteScheduler,
        HunyuanVideoPipeline,
        HunyuanVideoTransformer3DModel,
    )
    from transformers import LlamaConfig, LlamaModel

    tokenizer, second = _llama_tokenizer(), clip_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    vae = AutoencoderKLHunyuanVideo(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4
    )
    transformer = HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        text_embed_dim=TEXT_WIDTH,
        pooled_projection_dim=TEXT_WIDTH,
        rope_axes_dim=(4, 6, 6),
        **HEADS,
    )
    return HunyuanVideoPipeline(
        text_encoder=LlamaModel(config).eval(),
        tokenizer=tokenizer,
        transformer=transformer.eval(),
        vae=vae.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        text_encoder_2=clip(second),
        tokenizer_2=second,
    )
