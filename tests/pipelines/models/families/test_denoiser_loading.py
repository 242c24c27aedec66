import json
import shutil
import subprocess
import sys

import pytest
import torch

from infra.config import ConfigError
from pipelines.models.families.base import expect_family, family_named, family_names, family_of
from pipelines.models.families.schedule import noise_path, prediction_of
from support.tiny import FAMILIES, write_tiny


def copied(folder, target):
    return shutil.copytree(folder, target / folder.name)


def edited(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def load(folder, *, family=None, parts="all", dtype=torch.float32):
    found = family_named(family) if family else family_of(folder)
    return found.load(folder, parts=parts, device="cpu", dtype=dtype)


def test_families_are_named_without_torch():
    code = "from pipelines.models.families.base import *; import sys; family_names(); print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {name.split(".")[0] for name in found} & {"torch", "diffusers", "transformers", "ray", "peft"}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_folder_is_of_the_family_of_its_pipeline(tiny, whole, name):
    assert family_of(tiny[name]).name == name
    assert type(whole[name].pipeline).__name__ == family_named(name).pipeline_class
    assert name in family_names()
    assert sum(path.stat().st_size for path in tiny[name].rglob("*.safetensors")) < 2e6


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("parts", ["denoiser", "encoders", "decoder"])
def test_components_not_asked_for_are_absent_and_never_read(tiny, tmp_path, name, parts):
    folder, family = copied(tiny[name], tmp_path), family_named(name)
    vae = {"vae"} if family.has_vae else set()
    wanted = {"denoiser": {family.part}, "encoders": set(family.text_parts), "decoder": vae}[parts]
    for component in {family.part, *family.text_parts, *vae} - wanted:
        shutil.rmtree(folder / component)
    loaded = load(folder, parts=parts)
    present = {key for key, value in loaded.pipeline.components.items() if value is not None}
    assert present == wanted | {"scheduler"}
    if parts != "denoiser":
        with pytest.raises(ConfigError, match="without its denoiser"):
            _ = loaded.model


@pytest.mark.parametrize("name", FAMILIES)
def test_everything_is_frozen_and_in_the_dtype_asked_for(tiny, name):
    loaded = load(tiny[name], dtype=torch.bfloat16)
    modules = [value for value in loaded.pipeline.components.values() if isinstance(value, torch.nn.Module)]
    assert not any(p.requires_grad or module.training for module in modules for p in module.parameters())
    assert loaded.model.dtype == torch.bfloat16
    assert {value.dtype for value in loaded.encode_texts(["a red circle"])[0].values()} == {torch.bfloat16}


def test_another_family_is_refused_with_both_names(tiny):
    with pytest.raises(ConfigError, match=r"StableDiffusionXLPipeline \(family sdxl\), expected a Stable.*family sd3"):
        expect_family(tiny["sdxl"], "sd3")
    with pytest.raises(ConfigError, match="expected a FluxPipeline"):
        load(tiny["wan"], family="flux")
    with pytest.raises(ConfigError, match="choose one of sd15, sdxl"):
        family_named("sd4")


def test_an_unknown_pipeline_and_a_folder_without_one_are_refused(tiny, tmp_path):
    folder = copied(tiny["sd15"], tmp_path)
    edited(folder / "model_index.json", _class_name="KandinskyPipeline")
    with pytest.raises(ConfigError, match=r"KandinskyPipeline.*known are: sd15"):
        family_of(folder)
    with pytest.raises(ConfigError, match="does not exist"):
        family_of(tmp_path)


def test_pickled_and_missing_weights_are_refused(tiny, tmp_path):
    folder = copied(tiny["sd15"], tmp_path)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").rename(folder / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(ConfigError, match="not safetensors"):
        load(folder)
    (folder / "unet" / "diffusion_pytorch_model.bin").unlink()
    with pytest.raises(ConfigError, match=r"unet holds no \.safetensors"):
        load(folder)


def test_a_pipeline_without_a_component_is_refused(tiny, tmp_path):
    folder = copied(tiny["sd3"], tmp_path)
    edited(folder / "model_index.json", text_encoder_3=[None, None])
    with pytest.raises(ConfigError, match=r"no 'text_encoder_3', which sd3 needs"):
        load(folder, parts="encoders")
    load(folder, parts="denoiser")


def test_wan_2_2_and_another_vae_are_refused(tiny, tmp_path):
    folder = copied(tiny["wan"], tmp_path)
    edited(folder / "vae" / "config.json", scale_factor_spatial=16)
    with pytest.raises(ConfigError, match="latent of its VAE is 16 px wide, wan expects 8"):
        load(folder)
    edited(folder / "model_index.json", boundary_ratio=0.9)
    with pytest.raises(ConfigError, match=r"Wan 2\.2"):
        load(folder)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_scheduler_says_what_is_predicted(tiny, whole, name):
    expected = "epsilon" if name in ("sd15", "sdxl") else "flow"
    assert family_named(name).prediction(tiny[name]) == whole[name].path.prediction == expected


def test_v_prediction_is_read_and_what_is_not_trained_is_refused(tiny, tmp_path):
    folder = copied(tiny["sdxl"], tmp_path)
    config = folder / "scheduler" / "scheduler_config.json"
    edited(config, prediction_type="v_prediction")
    assert load(folder, parts="denoiser").path.prediction == family_of(folder).prediction(folder) == "v_prediction"
    with pytest.raises(ConfigError, match="prediction_type = 'sample'"):
        prediction_of({"prediction_type": "sample"})
    from diffusers import EDMEulerScheduler

    with pytest.raises(ConfigError, match="no alphas_cumprod"):
        noise_path(EDMEulerScheduler())


@pytest.mark.parametrize("scheduler", ["PNDMScheduler", "DDIMScheduler", "EulerDiscreteScheduler"])
def test_every_diffusion_scheduler_of_the_same_betas_is_the_same_path(whole, scheduler):
    import diffusers

    made = getattr(diffusers, scheduler).from_config(whole["sd15"].pipeline.scheduler.config)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    torch.testing.assert_close(noise_path(made).alphas_cumprod, torch.cumprod(1 - betas, 0))


def test_a_vae_is_known_by_its_values_not_by_how_they_are_stored(tiny, tmp_path):
    narrow = load(tiny["sd3"], parts="decoder", dtype=torch.bfloat16).pipeline
    narrow.vae.save_pretrained(tmp_path / "narrow" / "vae")
    narrow.vae.float().save_pretrained(tmp_path / "wide" / "vae", max_shard_size="20KB")
    from pipelines.models.families.vae_identity import vae_identity

    assert len(list((tmp_path / "wide" / "vae").glob("*.safetensors"))) > 1
    assert vae_identity(tmp_path / "narrow") == vae_identity(tmp_path / "wide") != vae_identity(tiny["sd3"])
    other = vae_identity(write_tiny("sd3", tmp_path / "other", seed=1))
    assert {key for key, value in other.items() if value != vae_identity(tiny["sd3"])[key]} == {"weights"}
    with pytest.raises(ConfigError, match="holds no VAE"):
        vae_identity(tmp_path)
