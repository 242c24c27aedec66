import json
import shutil
import subprocess
import sys

import pytest
import torch

from infra.config import ConfigError
from pipelines.models.families.schedule import noise_path, prediction_of
from support.tiny import FAMILIES, KINDS, family_at, write_tiny


def copied(folder, target):
    return shutil.copytree(folder, target / folder.name)


def edited(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def load(folder, *, family=None, parts="all", dtype=torch.float32):
    return family_at(family or folder.name, folder).load(parts=parts, device="cpu", dtype=dtype)


def test_families_are_imported_without_torch():
    code = "from pipelines.models.sizes import *; from pipelines.miniature.family import *; import sys; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {name.split(".")[0] for name in found} & {"torch", "diffusers", "transformers", "ray", "peft"}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_folder_is_of_the_family_of_its_pipeline(tiny, whole, name):
    assert type(whole[name].pipeline).__name__ == KINDS[name].pipeline_class
    assert family_at(name, tiny[name]).pipeline_type() is type(whole[name].pipeline)
    assert sum(path.stat().st_size for path in tiny[name].rglob("*.safetensors")) < 2e6


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("parts", ["denoiser", "encoders", "decoder"])
def test_components_not_asked_for_are_absent_and_never_read(tiny, tmp_path, name, parts):
    folder, family = copied(tiny[name], tmp_path), KINDS[name]
    vae = {"vae", *family.picture_parts} if family.has_vae else set()
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
    with pytest.raises(ConfigError, match=r"StableDiffusionXLPipeline, expected a StableDiffusion3Pipeline \(family sd3\)"):
        family_at("sd3", tiny["sdxl"])
    with pytest.raises(ConfigError, match="expected a FluxPipeline"):
        family_at("flux", tiny["flux"]).at(tiny["wan"]).load(parts="denoiser", device="cpu", dtype=torch.float32)


def test_an_unknown_pipeline_and_a_folder_without_one_are_refused(tiny, tmp_path):
    folder = copied(tiny["sd15"], tmp_path)
    edited(folder / "model_index.json", _class_name="KandinskyPipeline")
    with pytest.raises(ConfigError, match="KandinskyPipeline, expected a StableDiffusionPipeline"):
        family_at("sd15", folder)
    with pytest.raises(ConfigError, match="does not exist"):
        family_at("sd15", tmp_path)


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


def test_each_wan_refuses_the_others_and_names_what_to_give(tiny):
    with pytest.raises(ConfigError, match=r"of Wan 2\.2, expected Wan 2\.1"):
        family_at("wan", tiny["wan2.2-ti2v"])
    with pytest.raises(ConfigError, match=r"is not of Wan 2\.2 TI2V-5B"):
        family_at("wan2.2-ti2v", tiny["wan"])
    with pytest.raises(ConfigError, match="WanImageToVideoPipeline, expected a WanPipeline"):
        family_at("wan", tiny["wan-i2v"])
    with pytest.raises(ConfigError, match=r"of Wan 2\.2, expected Wan 2\.1"):
        family_at("wan-i2v", tiny["wan2.2-i2v"])


def test_what_is_published_for_texts_is_loaded_for_a_first_frame_too(tiny):
    loaded = load(tiny["wan2.2-ti2v"], family="wan2.2-i2v", parts="denoiser")
    assert type(loaded.pipeline).__name__ == "WanImageToVideoPipeline"
    assert loaded.pipeline.config.expand_timesteps


@pytest.mark.parametrize("name", FAMILIES)
def test_the_scheduler_says_what_is_predicted(tiny, whole, name):
    expected = "epsilon" if name in ("sd15", "sdxl") else "flow"
    assert family_at(name, tiny[name]).prediction() == whole[name].path.prediction == expected


def test_v_prediction_is_read_and_what_is_not_trained_is_refused(tiny, tmp_path):
    folder = copied(tiny["sdxl"], tmp_path)
    config = folder / "scheduler" / "scheduler_config.json"
    edited(config, prediction_type="v_prediction")
    assert load(folder, parts="denoiser").path.prediction == family_at("sdxl", folder).prediction() == "v_prediction"
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


def test_a_generators_identity_is_its_family_and_its_weights(tiny, tmp_path):
    from infra.identity import key_of
    from pipelines.models.weights import Hub

    same = copied(tiny["sd3"], tmp_path)
    assert key_of(family_at("sd3", tiny["sd3"])) == key_of(family_at("sd3", same))
    hubs = [KINDS[name](weights=Hub(repo="owner/name")) for name in ("sd3", "sd15")]
    assert key_of(hubs[0]) != key_of(hubs[1])


def test_a_stage_takes_any_family_and_nothing_else(tiny):
    from pipelines.stages.encode import Encoders

    assert Encoders(family=family_at("wan", tiny["wan"])).family.frame_multiple == 4
    with pytest.raises(ConfigError, match="family"):
        Encoders(family="wan")  # type: ignore[arg-type]


def test_weights_that_a_stage_makes_are_found_by_the_run_and_refused_where_they_are_of_another_family(tiny):
    from infra.dag.stage import Stage
    from pipelines.models.weights import Made

    class Maker(Stage):
        name = "maker"
        row = dict

    class Places:
        def weights(self, parent):
            return tiny["sdxl"]

    right, wrong = (KINDS[name](weights=Made(stage=Maker())) for name in ("sdxl", "sd3"))
    with pytest.raises(ConfigError, match="maker have no folder before the run"):
        _ = right.folder
    assert right.placed(Places()).prediction() == "epsilon"
    with pytest.raises(ConfigError, match="holds a StableDiffusionXLPipeline"):
        wrong.placed(Places()).load(parts="denoiser", device="cpu", dtype=torch.float32)
