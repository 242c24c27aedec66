"""Published sizes of denoisers: what `memory` reckons with; a test builds each from its published config and compares."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.models.families.flux import FLUX
from pipelines.models.families.sd3 import SD3
from pipelines.models.families.sd15 import SD15
from pipelines.models.families.sdxl import SDXL
from pipelines.models.families.wan import Wan
from pipelines.models.memory import Architecture, Kept


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
        layers=_SD3,
        kept=Kept(full=778_769, lora=446_218, recomputed=73_818),
        patch=2,
        text_tokens=333,
    ),
    "sd3.5-medium": Architecture(
        family=SD3,
        parameters=2_243_171_520,
        layers={**_SD3, "norm1.linear": 317952, **_same(_CROSS, 39936)},
        kept=Kept(full=1_336_268, lora=876_128, recomputed=106_224),
        patch=2,
        text_tokens=333,
    ),
    "sd3.5-large": Architecture(
        family=SD3,
        parameters=8_056_627_520,
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
        layers={**_same((*_SELF, *_CROSS), 92160), **_same(("ffn.net.0.proj", "ffn.net.2"), 314880)},
        kept=Kept(full=2_162_403, lora=1_230_258, recomputed=127_809),
        patch=2,
        frames=4,
    ),
    "wan2.1-14b": Architecture(
        family=Wan,
        parameters=14_288_491_584,
        layers={**_same((*_SELF, *_CROSS), 409600), **_same(("ffn.net.0.proj", "ffn.net.2"), 757760)},
        kept=Kept(full=8_311_818, lora=4_803_430, recomputed=442_154),
        patch=2,
        frames=4,
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
}
"""Repositories of the Hub that hold the generators of these sizes."""
