"""What ComfyUI reads is what was trained: through diffusers' own converters where they exist, else by ComfyUI's formula."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipelines.models.adapter import LoRA
from pipelines.models.comfyui import COMFYUI_FILE, comfyui_layers
from pipelines.models.policy import Policy
from support.tiny import family_at, write_tiny

RANK, ALPHA = 4, 12
KOHYA, PEFT = r"\.(lora_down\.weight|lora_up\.weight|alpha)", r"\.(lora_[AB]\.weight|alpha)"
SHAPE_OF_KEYS = {
    "sd15": r"lora_unet_\w+_(attn[12]_to_(q|k|v|out_0)|ff_net_(0_proj|2)|proj_in)" + KOHYA,
    "sdxl": r"lora_unet_\w+_(attn[12]_to_(q|k|v|out_0)|ff_net_(0_proj|2))" + KOHYA,
    "sd3": r"transformer\.transformer_blocks\.\d\.attn2?\.(add_\w_proj|to_\w+|to_out\.0)" + PEFT,
    "flux": r"transformer\.(single_)?transformer_blocks\.\d\.attn\.(add_\w_proj|to_\w+|to_out\.0)" + PEFT,
    "wan": r"diffusion_model\.blocks\.\d\.(self_attn\.[qkvo]|cross_attn\.[qkvo]|ffn\.[02])" + PEFT,
}
TARGETS = {
    "sd15": ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "attentions.0.proj_in"),
    "sdxl": ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"),
    "wan": ("to_q", "to_k", "to_v", "to_out.0", "net.0.proj", "ffn.net.2"),
}


@pytest.fixture(scope="module", params=SHAPE_OF_KEYS)
def exported(request, tmp_path_factory):
    """(family, base folder, export folder, trained parameters) of a random LoRA."""
    family = request.param
    root: Path = tmp_path_factory.mktemp(family)
    adapter = LoRA(rank=RANK, alpha=ALPHA, targets=TARGETS.get(family, ()))
    own = Policy(
        family_at(family, write_tiny(family, root / "base")),
        adapter=adapter,
        reference="none",
        checkpointing=False,
        dtype=torch.float32,
        device="cpu",
    )
    generator = torch.Generator().manual_seed(0)
    parameters = {
        name: torch.randn(value.shape, generator=generator) / 10
        for name, value in own.model.named_parameters()
        if value.requires_grad
    }
    own.export(parameters, root / "export", comfyui=True)
    return family, root / "base", root / "export", parameters


def changes(parameters: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What the LoRA adds to each layer's weight: alpha / rank * B A."""
    found = {}
    for name, down in parameters.items():
        if ".lora_A." in name:
            up = parameters[name.replace(".lora_A.", ".lora_B.")]
            product = (up.flatten(1) @ down.flatten(1)).view(up.shape[0], *down.shape[1:])
            found[name.split(".lora_A.")[0]] = ALPHA / RANK * product
    return found


def test_every_key_is_one_that_comfyui_looks_for(exported):
    family, _, folder, parameters = exported
    keys = list(load_file(folder / COMFYUI_FILE))
    assert [key for key in keys if not re.fullmatch(SHAPE_OF_KEYS[family], key)] == []
    assert len(keys) == len(parameters) / 2 * 3


def test_alpha_is_the_true_one_in_every_layer(exported):
    stored = load_file(exported[2] / COMFYUI_FILE)
    assert {float(value) for key, value in stored.items() if key.endswith(".alpha")} == {float(ALPHA)}


def test_comfyuis_formula_on_the_stored_halves_gives_the_trained_change(exported):
    family, _, folder, parameters = exported
    stored = load_file(folder / COMFYUI_FILE)
    expected = sorted(changes(parameters).values(), key=lambda change: float(change.abs().sum()))
    down, up = (
        (".lora_down.weight", ".lora_up.weight") if family in ("sd15", "sdxl") else (".lora_A.weight", ".lora_B.weight")
    )
    found = []
    for key, value in stored.items():
        if key.endswith(down):
            name = key.removesuffix(down)
            scale = stored[f"{name}.alpha"] / value.shape[0]
            product = stored[name + up].flatten(1) @ value.flatten(1)
            found.append(scale * product.view(-1, *value.shape[1:]))
    found.sort(key=lambda change: float(change.abs().sum()))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_diffusers_reads_the_same_change_back(exported):
    family, base, folder, parameters = exported
    stored = load_file(folder / COMFYUI_FILE)
    if family == "sd3":  # diffusers knows these names, but no alpha beside them
        stored = {key: value * (ALPHA / RANK if ".lora_B." in key else 1) for key, value in stored.items() if "lora" in key}
    loaded = family_at(family, base).load(parts="denoiser", device="cpu", dtype=torch.float32)
    before = {name: value.clone() for name, value in loaded.model.named_parameters()}
    loaded.pipeline.load_lora_weights(stored)
    loaded.model.fuse_lora()
    loaded.model.unload_lora()
    expected = changes(parameters)
    for name, value in loaded.model.named_parameters():
        change = expected.get(name.removesuffix(".weight"))
        if change is None:
            assert torch.equal(value, before[name]), name
        else:
            torch.testing.assert_close(value - before[name], change, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        ("blocks.11.attn1.to_out.0", "blocks.11.self_attn.o"),
        ("blocks.0.attn2.add_k_proj", "blocks.0.cross_attn.k_img"),
        ("condition_embedder.time_embedder.linear_2", "time_embedding.2"),
        ("condition_embedder.text_embedder.linear_1", "text_embedding.0"),
        ("condition_embedder.time_proj", "time_projection.1"),
        ("proj_out", "head.head"),
    ],
)
def test_wans_layers_have_their_names_of_wans_own_code(layer, name):
    found = comfyui_layers({f"{layer}.lora_A.weight": torch.zeros(1, 1)}, names="wan", alpha=1)
    assert f"diffusion_model.{name}.lora_A.weight" in found


def test_what_is_no_low_rank_addition_is_refused():
    with pytest.raises(ValueError, match=r"'proj\.weight' is no half"):
        comfyui_layers({"proj.weight": torch.zeros(1, 1)}, names="diffusers", alpha=1)
