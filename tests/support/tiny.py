"""Tiny random pipelines of diffusers' own classes, saved to disk as the published ones are.

Every VAE halves a picture three times (one latent a square of 8 pixels) and Wan's keeps one frame in four, like the
published ones; everything else is as small as its class allows. Pictures of 32x32 px and clips of 5 frames do.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from infra.store.files import Folder
from pipelines.miniature.family import MiniatureFamily
from pipelines.models.families.base import Family
from pipelines.models.families.flux import FLUX
from pipelines.models.families.flux2 import FLUX2Klein
from pipelines.models.families.hunyuan_video import HunyuanVideo
from pipelines.models.families.qwen_image import QwenImage
from pipelines.models.families.sd3 import SD3
from pipelines.models.families.sd15 import SD15
from pipelines.models.families.sdxl import SDXL
from pipelines.models.families.wan import Wan
from pipelines.models.families.wan22 import WanTI2V, WanTI2VFromFrame
from pipelines.models.families.wan_frame import WanFromFrame
from pipelines.models.families.z_image import ZImage
from support import tiny_qwen, tiny_video
from support.tiny_text import SECOND_WIDTH, TEXT_WIDTH, clip, clip_tokenizer, t5, t5_tokenizer

VIDEO = (Wan, WanTI2V, WanFromFrame, WanTI2VFromFrame, HunyuanVideo)
KINDS: dict[str, type[Family]] = {
    kind.name: kind for kind in (SD15, SDXL, SD3, FLUX, FLUX2Klein, QwenImage, ZImage, *VIDEO, MiniatureFamily)
}
FAMILIES = tuple(KINDS)
HEADS = {"num_attention_heads": 2, "attention_head_dim": 16}


def family_at(name: str, folder: Path | str) -> Family:
    """The family of that name with the weights in a folder."""
    return KINDS[name](weights=Folder(path=str(folder)))


def write_tiny(family: str, folder: Path, *, seed: int = 0) -> Path:
    """Saves the family's tiny pipeline under `folder` and returns it; weights are given by the seed."""
    builders: dict[str, Callable[[], Any]] = {
        "sd15": _sd15,
        "sdxl": _sdxl,
        "sd3": _sd3,
        "flux": _flux,
        "flux2-klein": tiny_qwen.flux2_klein,
        "qwen-image": tiny_qwen.qwen_image,
        "z-image": lambda: tiny_qwen.z_image(_flux_vae()),
        "wan": tiny_video.wan,
        "wan2.2-ti2v": tiny_video.wan_ti2v,
        "wan-i2v": tiny_video.wan_from_frame,
        "wan2.2-i2v": tiny_video.wan_ti2v_from_frame,
        "hunyuanvideo": tiny_video.hunyuan_video,
        "miniature": _miniature,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipeline = builders[family]()
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def _picture_vae(**options):
    from diffusers import AutoencoderKL

    blocks = 4
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * blocks,
        up_block_types=["UpDecoderBlock2D"] * blocks,
        block_out_channels=[8] * blocks,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        **options,
    ).eval()


def _flux_vae():
    return _picture_vae(scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False)


def _unet(**options):
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=4,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        **options,
    ).eval()


def _noise_schedule() -> dict[str, Any]:
    return {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def _sd15():
    from diffusers import PNDMScheduler, StableDiffusionPipeline

    tokenizer = clip_tokenizer()
    return StableDiffusionPipeline(
        vae=_picture_vae(scaling_factor=0.18215),
        text_encoder=clip(tokenizer),
        tokenizer=tokenizer,
        unet=_unet(cross_attention_dim=TEXT_WIDTH, attention_head_dim=2),
        scheduler=PNDMScheduler(skip_prk_steps=True, set_alpha_to_one=False, **_noise_schedule()),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sdxl():
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

    first, second = clip_tokenizer(), clip_tokenizer(pad="!")
    unet = _unet(
        cross_attention_dim=TEXT_WIDTH + SECOND_WIDTH,
        attention_head_dim=(2, 4),
        transformer_layers_per_block=(1, 2),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=SECOND_WIDTH + 6 * 8,
    )
    return StableDiffusionXLPipeline(
        vae=_picture_vae(scaling_factor=0.13025),
        text_encoder=clip(first),
        text_encoder_2=clip(second, width=SECOND_WIDTH, projection=True),
        tokenizer=first,
        tokenizer_2=second,
        unet=unet,
        scheduler=EulerDiscreteScheduler(timestep_spacing="leading", **_noise_schedule()),
        add_watermarker=False,
    )


def _sd3():
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    first, second, third = clip_tokenizer(), clip_tokenizer(pad="!"), t5_tokenizer()
    joint = 64  # T5's width, to which the two CLIP encoders' states, side by side, are padded
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        joint_attention_dim=joint,
        caption_projection_dim=32,
        pooled_projection_dim=TEXT_WIDTH + SECOND_WIDTH,
        pos_embed_max_size=8,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
        **HEADS,
    )
    return StableDiffusion3Pipeline(
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_picture_vae(scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=clip(first, projection=True),
        tokenizer=first,
        text_encoder_2=clip(second, width=SECOND_WIDTH, projection=True),
        tokenizer_2=second,
        text_encoder_3=t5(third, width=joint),
        tokenizer_3=third,
    )


def _flux():
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    first, second = clip_tokenizer(), t5_tokenizer()
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=TEXT_WIDTH,
        guidance_embeds=True,
        axes_dims_rope=(4, 6, 6),
        **HEADS,
    )
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=_flux_vae(),
        text_encoder=clip(first),
        tokenizer=first,
        text_encoder_2=t5(second),
        tokenizer_2=second,
        transformer=transformer.eval(),
    )


def _miniature():
    from pipelines.miniature.denoiser import build_sd3
    from pipelines.miniature.pipeline import assemble
    from pipelines.miniature.text import TextOptions, build_text_encoder

    denoiser = build_sd3(layers=2, heads=2, head_width=16, text_width=TEXT_WIDTH, seed=0)
    torch.nn.init.normal_(denoiser.proj_out.weight, std=0.05)  # it starts at zero, where every error is the same
    return assemble(denoiser, build_text_encoder(TextOptions(hidden=TEXT_WIDTH, layers=1, heads=2, seed=0)))
