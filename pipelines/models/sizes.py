"""Published sizes of denoisers: what `memory` reckons with; a test builds each from its published config and compares."""

from __future__ import annotations

from collections.abc import Sequence

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
from pipelines.models.memory import Architecture, Kept, Operations


def _same(names: Sequence[str], size: int) -> dict[str, int]:
    return dict.fromkeys(names, size)


_ATTN = ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0")
_ADDED = ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")
_SELF = ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0")
_CROSS = ("attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0")
_FEED = ("ff.net.0.proj", "ff.net.2")
_FEED_TEXT = ("ff_context.net.0.proj", "ff_context.net.2")
_SD3 = {
    **_same((*_ATTN, *_ADDED), 73728), "attn.to_add_out": 70656, **_same(_FEED, 184320), **_same(_FEED_TEXT, 176640),
    "norm1.linear": 258048, "norm1_context.linear": 251904,
}  # fmt: skip

ARCHITECTURES: dict[str, Architecture] = {
    "sd15": Architecture(
        family=SD15,
        parameters=859_520_964,
        linear=270_049_280,
        operations=Operations(per_token=1.664e8, per_pair=7256),
        layers={
            **_same((*_SELF, "attn2.to_q", "attn2.to_out.0", "proj_in", "proj_out"), 24960),
            **_same(("attn2.to_k", "attn2.to_v"), 24768), "ff.net.0.proj": 112320, "ff.net.2": 62400,
            "time_emb_proj": 48320, "conv1": 288000, "conv2": 201600, "conv_shortcut": 34560,
            "downsamplers.0.conv": 22400, "upsamplers.0.conv": 32000,
        },
        kept=Kept(full=114_346, lora=98_632, recomputed=27_911),
    ),
    "sdxl": Architecture(
        family=SDXL,
        parameters=2_567_463_684,
        linear=2_232_647_680,
        operations=Operations(per_token=3.796e8, per_pair=2017),
        layers={
            **_same((*_SELF, "attn2.to_q", "attn2.to_out.0"), 166400), **_same(("attn2.to_k", "attn2.to_v"), 226560),
            **_same(("proj_in", "proj_out"), 21760), "ff.net.0.proj": 748800, "ff.net.2": 416000,
            "time_emb_proj": 35520, "conv1": 189440, "conv2": 137600, "conv_shortcut": 23040,
            "downsamplers.0.conv": 9600, "upsamplers.0.conv": 19200,
        },
        kept=Kept(full=210_233, lora=171_687, recomputed=22_443),
    ),
    "sd3-medium": Architecture(
        family=SD3,
        parameters=2_028_328_000,
        linear=2_027_126_784,
        operations=Operations(per_token=1.351e9, per_pair=148_900),
        layers=_SD3,
        kept=Kept(full=778_769, lora=446_218, recomputed=73_818),
        patch=2,
        text_tokens=333,
    ),
    "sd3.5-medium": Architecture(
        family=SD3,
        parameters=2_243_171_520,
        linear=2_241_822_720,
        operations=Operations(per_token=1.473e9, per_pair=240_900),
        layers={**_SD3, "norm1.linear": 317952, **_same(_CROSS, 39936)},
        kept=Kept(full=1_336_268, lora=876_128, recomputed=106_224),
        patch=2,
        text_tokens=333,
    ),
    "sd3.5-large": Architecture(
        family=SD3,
        parameters=8_056_627_520,
        linear=8_053_694_464,
        operations=Operations(per_token=5.372e9, per_pair=373_600),
        layers={
            **_same((*_ATTN, *_ADDED), 184832), "attn.to_add_out": 179968, **_same(_FEED, 462080),
            **_same(_FEED_TEXT, 449920), "norm1.linear": 646912, "norm1_context.linear": 637184,
        },
        kept=Kept(full=2_694_149, lora=1_676_549, recomputed=170_313),
        patch=2,
        text_tokens=333,
    ),
    "flux.1-dev": Architecture(
        family=FLUX,
        parameters=11_901_408_320,
        linear=11_898_322_944,
        operations=Operations(per_token=1.293e10, per_pair=697_700),
        layers={
            **_same(_ATTN[:3], 350208), **_same(("attn.to_out.0", "attn.to_add_out", *_ADDED), 116736),
            **_same((*_FEED, *_FEED_TEXT), 291840), **_same(("norm1.linear", "norm1_context.linear"), 408576),
            "norm.linear": 466944, "proj_mlp": 583680, "proj_out": 700416,
        },
        kept=Kept(full=4_571_138, lora=2_525_231, recomputed=270_852),
        patch=2,
        text_tokens=512,
    ),
    "wan2.1-1.3b": Architecture(
        family=Wan,
        parameters=1_418_996_800,
        linear=1_414_889_472,
        operations=Operations(per_token=2.658e9, per_pair=180_200),
        layers={**_same((*_SELF, *_CROSS), 92160), **_same(("ffn.net.0.proj", "ffn.net.2"), 314880)},
        kept=Kept(full=2_162_403, lora=1_230_258, recomputed=127_809),
        patch=2,
        frames=4,
    ),
    "wan2.1-14b": Architecture(
        family=Wan,
        parameters=14_288_491_584,
        linear=14_255_718_400,
        operations=Operations(per_token=2.522e10, per_pair=761_000),
        layers={**_same((*_SELF, *_CROSS), 409600), **_same(("ffn.net.0.proj", "ffn.net.2"), 757760)},
        kept=Kept(full=8_311_818, lora=4_803_430, recomputed=442_154),
        patch=2,
        frames=4,
    ),
    "flux.2-klein-4b": Architecture(
        family=FLUX2Klein,
        parameters=3_875_544_576,
        linear=3_875_536_896,
        operations=Operations(per_token=6.156e9, per_pair=303_900),
        layers={
            **_same((*_ATTN, *_ADDED, "attn.to_add_out"), 30720),
            **_same(("ff.linear_in", "ff_context.linear_in"), 107520),
            **_same(("ff.linear_out", "ff_context.linear_out"), 61440),
            "attn.to_qkv_mlp_proj": 614400, "attn.to_out": 307200,
        },
        kept=Kept(full=2_410_136, lora=1_596_715, recomputed=185_480),
        vae=16,
        text_tokens=512,
    ),
    "flux.2-klein-9b": Architecture(
        family=FLUX2Klein,
        parameters=9_078_581_248,
        linear=9_078_571_008,
        operations=Operations(per_token=1.401e10, per_pair=517_100),
        layers={
            **_same((*_ATTN, *_ADDED, "attn.to_add_out"), 65536),
            **_same(("ff.linear_in", "ff_context.linear_in"), 229376),
            **_same(("ff.linear_out", "ff_context.linear_out"), 131072),
            "attn.to_qkv_mlp_proj": 983040, "attn.to_out": 491520,
        },
        kept=Kept(full=4_116_258, lora=2_717_297, recomputed=276_226),
        vae=16,
        text_tokens=512,
    ),
    "qwen-image": Architecture(
        family=QwenImage,
        parameters=20_430_401_088,
        linear=20_424_818_688,
        operations=Operations(per_token=1.361e10, per_pair=733_800),
        layers={
            **_same((*_ATTN, *_ADDED, "attn.to_add_out"), 368640), **_same(("img_mod.1", "txt_mod.1"), 1290240),
            **_same(("img_mlp.net.0.proj", "img_mlp.net.2", "txt_mlp.net.0.proj", "txt_mlp.net.2"), 921600),
        },
        kept=Kept(full=5_180_995, lora=3_104_705, recomputed=279_988),
        patch=2,
        text_tokens=512,
    ),
    "z-image": Architecture(
        family=ZImage,
        parameters=6_154_908_736,
        linear=6_153_863_168,
        operations=Operations(per_token=1.132e10, per_pair=487_800),
        layers={
            **_same(("attention.to_q", "attention.to_k", "attention.to_v", "attention.to_out.0"), 261120),
            **_same(("feed_forward.w1", "feed_forward.w2", "feed_forward.w3"), 478720), "adaLN_modulation.0": 499712,
        },
        kept=Kept(full=5_501_270, lora=3_812_439, recomputed=308_078),
        patch=2,
        text_tokens=512,
    ),
    "wan2.1-i2v-14b": Architecture(
        family=WanFromFrame,
        parameters=16_394_878_784,
        linear=16_361_062_400,
        operations=Operations(per_token=2.587e10, per_pair=732_400),
        layers={
            **_same((*_SELF, *_CROSS, "attn2.add_k_proj", "attn2.add_v_proj"), 409600),
            **_same(("ffn.net.0.proj", "ffn.net.2"), 757760),
        },
        kept=Kept(full=8_711_571, lora=5_185_730, recomputed=452_096),
        patch=2,
        frames=4,
    ),
    **{
        name: Architecture(
            family=family,
            parameters=4_999_787_712,
            linear=4_986_568_704,
            operations=Operations(per_token=9.987e9, per_pair=113_300),
            layers={**_same((*_SELF, *_CROSS), 184320), **_same(("ffn.net.0.proj", "ffn.net.2"), 522240)},
            kept=Kept(full=5_739_535, lora=3_910_465, recomputed=339_180),
            vae=16,
            patch=2,
            frames=4,
        )
        for name, family in (("wan2.2-ti2v-5b", WanTI2V), ("wan2.2-i2v-5b", WanTI2VFromFrame))
    },
    "hunyuanvideo": Architecture(
        family=HunyuanVideo,
        parameters=12_821_012_544,
        linear=12_817_465_344,
        operations=Operations(per_token=1.364e10, per_pair=734_100),
        layers={
            **_same(_ATTN[:3], 380928), "attn.to_out.0": 135168, **_same((*_ADDED, "attn.to_add_out"), 122880),
            **_same(_FEED, 337920), **_same(_FEED_TEXT, 307200), **_same(("norm1.linear", "norm1_context.linear"), 430080),
            "norm_out.linear": 18432, "norm.linear": 491520, "proj_mlp": 614400, "proj_out": 737280,
        },
        kept=Kept(full=4_939_555, lora=3_026_882, recomputed=285_568),
        patch=2,
        frames=4,
        text_tokens=256,
    ),
}  # fmt: skip
"""Denoisers by name, in their published configs."""

PUBLISHED = {
    "sd15": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "sdxl": "stabilityai/stable-diffusion-xl-base-1.0",
    "sd3-medium": "stabilityai/stable-diffusion-3-medium-diffusers",
    "sd3.5-medium": "stabilityai/stable-diffusion-3.5-medium",
    "sd3.5-large": "stabilityai/stable-diffusion-3.5-large",
    "flux.1-dev": "black-forest-labs/FLUX.1-dev",
    "wan2.1-1.3b": "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
    "wan2.1-14b": "Wan-AI/Wan2.1-T2V-14B-Diffusers",
    "flux.2-klein-4b": "black-forest-labs/FLUX.2-klein-base-4B",
    "flux.2-klein-9b": "black-forest-labs/FLUX.2-klein-base-9B",
    "qwen-image": "Qwen/Qwen-Image",
    "z-image": "Tongyi-MAI/Z-Image",
    "wan2.1-i2v-14b": "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
    "wan2.2-ti2v-5b": "Wan-AI/Wan2.2-TI2V-5B-Diffusers",
    "wan2.2-i2v-5b": "Wan-AI/Wan2.2-TI2V-5B-Diffusers",
    "hunyuanvideo": "hunyuanvideo-community/HunyuanVideo",
}
"""Repositories of the Hub that hold the generators of these sizes."""
