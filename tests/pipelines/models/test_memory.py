"""Published sizes are those of the real classes; what a rank keeps follows the engine's rules."""

import re
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from infra.config import ConfigError
from pipelines.miniature.family import ARCHITECTURE
from pipelines.models.memory import GIB, rank_memory
from pipelines.models.sizes import ARCHITECTURES as PUBLISHED_SIZES

U_NET = {"cross_attention_dim": 768, "attention_head_dim": 8, "sample_size": 64}
SDXL = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "transformer_layers_per_block": (1, 2, 10),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
SD3 = {
    "sample_size": 128,
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 16,
    "num_layers": 24,
    "attention_head_dim": 64,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "caption_projection_dim": 1536,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 192,
}
FLUX = {
    "patch_size": 1,
    "in_channels": 64,
    "num_layers": 19,
    "num_single_layers": 38,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 768,
    "guidance_embeds": True,
    "axes_dims_rope": (16, 56, 56),
}
WAN = {
    "patch_size": (1, 2, 2),
    "num_attention_heads": 12,
    "attention_head_dim": 128,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": 4096,
    "freq_dim": 256,
    "ffn_dim": 8960,
    "num_layers": 30,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "rope_max_seq_len": 1024,
}
WAN_14B = WAN | {"num_attention_heads": 40, "ffn_dim": 13824, "num_layers": 40}
WAN_TI2V = WAN | {"num_attention_heads": 24, "ffn_dim": 14336, "in_channels": 48, "out_channels": 48}
WAN_I2V = WAN_14B | {"in_channels": 36, "image_dim": 1280, "added_kv_proj_dim": 5120}
KLEIN = {
    "in_channels": 128,
    "num_layers": 5,
    "num_single_layers": 20,
    "num_attention_heads": 24,
    "joint_attention_dim": 7680,
    "guidance_embeds": False,
}
KLEIN_9B = KLEIN | {"num_layers": 8, "num_single_layers": 24, "num_attention_heads": 32, "joint_attention_dim": 12288}
QWEN_IMAGE = {"num_layers": 60, "num_attention_heads": 24, "joint_attention_dim": 3584}
Z_IMAGE = {"dim": 3840, "n_layers": 30, "n_refiner_layers": 2, "n_heads": 30, "n_kv_heads": 30, "cap_feat_dim": 2560}
HUNYUAN = {"num_layers": 20, "num_single_layers": 40, "num_attention_heads": 24, "text_embed_dim": 4096}
MINIATURE = {
    "sample_size": 24,
    "patch_size": 8,
    "in_channels": 3,
    "out_channels": 3,
    "num_layers": 4,
    "attention_head_dim": 32,
    "num_attention_heads": 4,
    "joint_attention_dim": 64,
    "caption_projection_dim": 128,
    "pooled_projection_dim": 64,
    "pos_embed_max_size": 3,
}
ARCHITECTURES = PUBLISHED_SIZES | {"miniature": ARCHITECTURE}
PUBLISHED = {
    "sd15": ("UNet2DConditionModel", U_NET),
    "sdxl": ("UNet2DConditionModel", SDXL),
    "sd3-medium": ("SD3Transformer2DModel", SD3),
    "sd3.5-medium": (
        "SD3Transformer2DModel",
        SD3 | {"pos_embed_max_size": 384, "qk_norm": "rms_norm", "dual_attention_layers": tuple(range(13))},
    ),
    "sd3.5-large": (
        "SD3Transformer2DModel",
        SD3 | {"num_layers": 38, "num_attention_heads": 38, "caption_projection_dim": 2432, "qk_norm": "rms_norm"},
    ),
    "flux.1-dev": ("FluxTransformer2DModel", FLUX),
    "wan2.1-1.3b": ("WanTransformer3DModel", WAN),
    "flux.2-klein-4b": ("Flux2Transformer2DModel", KLEIN),
    "flux.2-klein-9b": ("Flux2Transformer2DModel", KLEIN_9B),
    "qwen-image": ("QwenImageTransformer2DModel", QWEN_IMAGE),
    "z-image": ("ZImageTransformer2DModel", Z_IMAGE),
    "wan2.1-14b": ("WanTransformer3DModel", WAN_14B),
    "wan2.1-i2v-14b": ("WanTransformer3DModel", WAN_I2V),
    "wan2.2-ti2v-5b": ("WanTransformer3DModel", WAN_TI2V),
    "wan2.2-i2v-5b": ("WanTransformer3DModel", WAN_TI2V),
    "hunyuanvideo": ("HunyuanVideoTransformer3DModel", HUNYUAN),
    "miniature": ("MiniatureSD3", MINIATURE),
}
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
TARGETS = {"sd3": (*ATTENTION, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")}
TARGETS |= {"flux": TARGETS["sd3"], "miniature": TARGETS["sd3"], "flux2-klein": (*ATTENTION, "to_qkv_mlp_proj")}


@cache
def built(name: str):
    """The published model without its numbers, in bfloat16."""
    import diffusers

    from pipelines.miniature.denoiser import MiniatureSD3

    kind, config = PUBLISHED[name]
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            return MiniatureSD3(**config) if kind == "MiniatureSD3" else getattr(diffusers, kind)(**config)
    finally:
        torch.set_default_dtype(usual)


def targets_of(name: str) -> tuple[str, ...]:
    return TARGETS.get(ARCHITECTURES[name].family.name, ATTENTION)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_parameters_are_those_of_the_published_config(name):
    assert ARCHITECTURES[name].parameters == sum(p.numel() for p in built(name).parameters())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_base_in_four_bits_keeps_the_linear_layers_that_diffusers_quantises_so(name):
    model = built(name)
    kept = model._keep_in_fp32_modules or ()
    layers = {layer: module for layer, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    # The rule of diffusers.quantizers.bitsandbytes.replace_with_bnb_linear.
    chosen = [layer for layer in layers if not any(part + "." in layer or part == layer for part in kept)]
    assert ARCHITECTURES[name].linear == sum(layers[layer].weight.numel() for layer in chosen)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_loras_parameters_are_those_of_its_layers(name):
    found: dict[str, int] = {}
    for layer, module in built(name).named_modules():
        inside = re.match(r"^.*(?:blocks|attentions|resnets|layers|refiner)\.\d+\.(.+)$", layer)
        if inside and isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
            size = module.weight[0].numel() + module.weight.shape[0]
            found[inside[1]] = found.get(inside[1], 0) + size
    assert dict(ARCHITECTURES[name].layers) == found


def test_published_loras_have_their_known_size():
    # SD 1.5, rank 4 on q, k, v and o: 797,184 parameters, the 3.2 MB of diffusers' first example.
    assert ARCHITECTURES["sd15"].lora_parameters(ATTENTION, rank=4) == 797_184


def test_an_unknown_target_is_refused_and_the_known_ones_are_shown():
    with pytest.raises(ConfigError, match=r"'to_quarry' matches no layer of sdxl.*attn1\.to_q"):
        ARCHITECTURES["sdxl"].lora_parameters(("to_q", "to_quarry"), rank=4)


def test_a_layer_that_two_targets_name_counts_once():
    sd15 = ARCHITECTURES["sd15"]
    assert sd15.lora_parameters(("to_q", "attn1.to_q"), rank=2) == sd15.lora_parameters(("to_q",), rank=2)


@pytest.mark.parametrize(
    ("name", "size", "tokens"),
    [
        ("sd15", (512, 512, 1), 64 * 64),
        ("sd3.5-medium", (1024, 768, 1), 64 * 48 + 333),
        ("wan2.1-1.3b", (480, 832, 81), 30 * 52 * 21),
        ("miniature", (24, 24, 1), 9 + 14),
    ],
)
def test_tokens_of_a_size(name, size, tokens):
    height, width, frames = size
    assert ARCHITECTURES[name].tokens(height=height, width=width, frames=frames) == tokens


class LinearMemory(TorchFunctionMode):
    """Attention as GPUs do it, whose backward keeps no score of a pair of tokens; tensors without numbers lack a choice."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        named = dict(zip(("query", "key", "value"), args, strict=False)) | (kwargs or {})
        if func is F.scaled_dot_product_attention:
            three = [named[which] for which in ("query", "key", "value")]
            return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*three, 0.0, False)[0]
        return func(*args, **(kwargs or {}))


class Storages:
    """Bytes of the distinct memory behind tensors, parameters aside."""

    def __init__(self, model):
        self.parameters = {id_of(p) for p in (*model.parameters(), *model.buffers())}
        self.seen = {}

    def add(self, tensor):
        if id_of(tensor) not in self.parameters:
            self.seen[id_of(tensor)] = tensor.untyped_storage()
        return tensor

    def hooks(self):
        return saved_tensors_hooks(self.add, lambda tensor: tensor)

    @property
    def values(self):
        return sum(storage.nbytes() for storage in self.seen.values()) / torch.bfloat16.itemsize


def id_of(tensor):
    return tensor.untyped_storage()._cdata


def _wan(config, side, drawn, one):
    first = {"encoder_hidden_states_image": drawn(1, 257, 1280)} if "image_dim" in config else {}
    time = one.expand(1, 3 * side**2) if config["in_channels"] == 48 else one
    x = drawn(1, config["in_channels"], 3, 2 * side, 2 * side)
    return {"hidden_states": x, "timestep": time, "encoder_hidden_states": drawn(1, 512, 4096), **first}


def _klein(config, side, drawn, one):
    places = {"img_ids": torch.zeros(side**2, 4, device="meta"), "txt_ids": torch.zeros(512, 4, device="meta")}
    text = drawn(1, 512, config["joint_attention_dim"])
    return {"hidden_states": drawn(1, side**2, 128), "timestep": one, "encoder_hidden_states": text, **places}


def _qwen_image(config, side, drawn, one):
    text = drawn(1, 512, config["joint_attention_dim"])
    x, shapes = drawn(1, side**2, 64), [[(1, side, side)]]
    return {"hidden_states": x, "timestep": one, "encoder_hidden_states": text, "img_shapes": shapes}


def _z_image(config, side, drawn, one):
    return {"x": [drawn(16, 1, 2 * side, 2 * side)], "t": one, "cap_feats": [drawn(512, config["cap_feat_dim"])]}


def _hunyuan(config, side, drawn, one):
    return {
        "hidden_states": drawn(1, 16, 3, 2 * side, 2 * side),
        "timestep": one,
        "encoder_hidden_states": drawn(1, 256, config["text_embed_dim"]),
        "encoder_attention_mask": torch.ones(1, 256, device="meta"),
        "pooled_projections": drawn(1, 768),
        "guidance": one,
    }


NEWER = {
    **dict.fromkeys(("wan", "wan-i2v", "wan2.2-ti2v", "wan2.2-i2v"), _wan),
    "flux2-klein": _klein,
    "qwen-image": _qwen_image,
    "z-image": _z_image,
    "hunyuanvideo": _hunyuan,
}
"""By family: the inputs for that many tokens a side."""


def inputs(name: str, side: int):
    """What the denoiser of a square picture, or of a clip of 9 frames, is called with."""
    family, config = ARCHITECTURES[name].family.name, PUBLISHED[name][1]
    latent = side // ARCHITECTURES[name].vae
    drawn = lambda *shape: torch.randn(*shape, device="meta", dtype=torch.bfloat16)  # noqa: E731
    one = torch.ones(1, device="meta", dtype=torch.bfloat16)
    if family in ("sd15", "sdxl"):
        added = {"text_embeds": drawn(1, 1280), "time_ids": drawn(1, 6)} if family == "sdxl" else None
        text = drawn(1, 77, config["cross_attention_dim"])
        return {
            "sample": drawn(1, 4, latent, latent),
            "timestep": one,
            "encoder_hidden_states": text,
            "added_cond_kwargs": added,
        }
    if family in NEWER:
        return NEWER[family](config, latent // ARCHITECTURES[name].patch, drawn, one)
    text = drawn(1, ARCHITECTURES[name].text_tokens, config["joint_attention_dim"])
    common = {
        "encoder_hidden_states": text,
        "pooled_projections": drawn(1, config["pooled_projection_dim"]),
        "timestep": one,
    }
    if family == "flux":
        places = {
            "img_ids": torch.zeros((latent // 2) ** 2, 3, device="meta"),
            "txt_ids": torch.zeros(512, 3, device="meta"),
        }
        return {"hidden_states": drawn(1, (latent // 2) ** 2, 64), "guidance": one, **places, **common}
    return {"hidden_states": drawn(1, config["in_channels"], latent, latent), **common}


def kept(name: str, side: int, *, lora: bool, checkpointing: bool) -> float:
    """Values the backward pass keeps, measured: all, or with checkpointing the blocks' inputs and the largest block."""
    built.cache_clear()  # an adapter, once added, stays
    model, arguments = built(name), inputs(name, side)
    if lora:
        model.requires_grad_(False)
        model.add_adapter(LoraConfig(r=32, target_modules=list(targets_of(name)), init_lora_weights=False))
        assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    outside, largest = Storages(model), 0.0

    def recomputed(block, *given):
        nonlocal largest
        for tensor in given:
            if isinstance(tensor, torch.Tensor):
                outside.add(tensor)
        inside = Storages(model)
        with inside.hooks():
            out = block(*given)
        largest = max(largest, inside.values)
        return out

    if checkpointing:
        model.enable_gradient_checkpointing(recomputed)
    with torch.device("meta"), LinearMemory(), outside.hooks():
        model(**arguments, return_dict=False)
    return outside.values + largest


# The other Wan 2.2 has the same denoiser, and klein's larger form takes long.
MEASURED = [name for name in ARCHITECTURES if name not in ("flux.2-klein-9b", "wan2.2-i2v-5b")]


@pytest.mark.parametrize("name", MEASURED)
@pytest.mark.parametrize(("lora", "checkpointing"), [(True, False), (False, False), (False, True)])
def test_activations_are_within_a_tenth_of_what_autograd_keeps(name, lora, checkpointing, monkeypatch):
    # DeepSpeed's ZeRO 3 leaves its own `linear` in torch, which keeps less: another test of this process may have run it.
    monkeypatch.setattr(F, "linear", torch._C._nn.linear)
    side = 24 if name == "miniature" else 768
    measured = kept(name, side, lora=lora, checkpointing=checkpointing)
    own = ARCHITECTURES[name]
    tokens = own.tokens(height=side, width=side, frames=1 if own.family.frame_multiple is None else 9)
    values = own.kept.recomputed if checkpointing else own.kept.lora if lora else own.kept.full
    assert tokens * values == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize(
    ("name", "side"), [("flux.2-klein-4b", 768), ("z-image", 768), ("wan2.1-1.3b", 768), ("sdxl", 768)]
)
def test_operations_are_those_that_torch_counts(name, side):
    model, own = built(name), ARCHITECTURES[name]
    with torch.device("meta"), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        model(**inputs(name, side), return_dict=False)
    tokens = own.tokens(height=side, width=side, frames=1 if own.family.frame_multiple is None else 9)
    reckoned = own.operations.per_token * tokens + own.operations.per_pair * tokens**2
    assert reckoned == pytest.approx(counter.get_total_flops(), rel=0.02)


PLAIN = {
    "adapter": "full",
    "rank": 32,
    "targets": ATTENTION,
    "zero": 0,
    "workers": 1,
    "offload": "none",
    "bf16": False,
    "ema": False,
    "reference": "none",
    "checkpointing": False,
    "micro_batch": 1,
    "height": 512,
    "width": 512,
}


def memory(name: str = "sd15", **changes):
    return rank_memory(ARCHITECTURES[name], **PLAIN | changes)


def test_plain_training_keeps_sixteen_bytes_a_parameter():
    found, unit = memory(), ARCHITECTURES["sd15"].parameters / GIB
    assert (found.parameters, found.gradients, found.optimizer) == pytest.approx((4 * unit, 4 * unit, 8 * unit))
    assert found.reference == found.ema == found.host == 0
    assert found.total == pytest.approx(16 * unit + found.activations)


def test_stages_divide_the_optimizer_then_gradients_then_parameters():
    unit = ARCHITECTURES["flux.1-dev"].parameters / GIB
    first, second, third = (memory("flux.1-dev", zero=zero, workers=8, bf16=True) for zero in (1, 2, 3))
    assert first.optimizer == second.optimizer == third.optimizer == pytest.approx(12 / 8 * unit)
    assert (first.gradients, second.gradients) == pytest.approx((2 * unit, 2 / 8 * unit))
    assert (second.parameters, third.parameters) == pytest.approx((2 * unit, 2 / 8 * unit + 2 * 10**9 / GIB))


def test_what_is_offloaded_lies_beside_the_gpu():
    here = memory(zero=3, workers=4, bf16=True)
    optimizer, everything = (memory(zero=3, workers=4, bf16=True, offload=which) for which in ("optimizer", "all"))
    assert optimizer.optimizer == 0
    assert optimizer.host == pytest.approx(here.optimizer + here.gradients)
    unit = ARCHITECTURES["sd15"].parameters / GIB
    assert everything.host == pytest.approx(optimizer.host + 2 / 4 * unit)
    assert everything.total <= optimizer.total < here.total


def test_the_average_lies_where_the_masters_lie():
    unit = 4 * ARCHITECTURES["sd15"].parameters / GIB
    assert memory(ema=True, workers=4).ema == pytest.approx(unit)
    assert memory(ema=True, workers=4, zero=1).ema == pytest.approx(unit / 4)
    beside = memory(ema=True, workers=4, zero=1, offload="optimizer")
    assert beside.ema == 0
    assert beside.host - memory(workers=4, zero=1, offload="optimizer").host == pytest.approx(unit / 4)


def test_a_lora_trains_only_its_layers():
    lora, full = memory(adapter="lora", bf16=True), memory(bf16=True)
    added = ARCHITECTURES["sd15"].lora_parameters(ATTENTION, rank=32) / GIB
    assert lora.optimizer == pytest.approx(8 * added)
    assert lora.parameters == pytest.approx(2 * ARCHITECTURES["sd15"].parameters / GIB + 6 * added)
    assert lora.total < full.total


def test_only_a_copy_of_the_reference_takes_memory():
    none, adapter, copy = (memory(adapter="lora", bf16=True, reference=which) for which in ("none", "adapter", "copy"))
    assert none == adapter
    assert copy.total - none.total == copy.reference == pytest.approx(2 * ARCHITECTURES["sd15"].parameters / GIB)


def test_activations_grow_with_the_pictures_and_their_area():
    assert memory(micro_batch=3).activations == pytest.approx(3 * memory().activations)
    assert memory(height=1024).activations == pytest.approx(2 * memory().activations)
    assert memory(bf16=True).activations == pytest.approx(memory().activations / 2)
    assert memory(checkpointing=True).activations < memory().activations / 3


def test_four_bits_take_half_a_byte_and_the_scales_under_a_lora():
    # QLoRA, section 3: double quantisation leaves .127 bits of scales per weight.
    given = {"adapter": "lora", "bf16": True, "targets": ("to_q",), "base_precision": "nf4"}
    own, found = ARCHITECTURES["qwen-image"], memory("qwen-image", **given)
    whole = memory("qwen-image", **given | {"base_precision": "unquantised"})
    assert whole.parameters - found.parameters == pytest.approx(own.linear * (2 - (4 + 0.127) / 8) / GIB, rel=1e-4)
    assert found.parameters < 0.27 * whole.parameters
    assert (found.gradients, found.optimizer, found.activations) == (whole.gradients, whole.optimizer, whole.activations)
    assert memory("qwen-image", **given, reference="copy").reference == pytest.approx(own.linear * 0.5159 / GIB, rel=1e-3)
