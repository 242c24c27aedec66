"""What a loaded family computes is what its pipeline's own call computes."""

import copy
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from pipelines.algorithms.diffusion.flow import shift_times
from pipelines.algorithms.diffusion.path import PathSample
from pipelines.models.families.base import SIZES
from pipelines.models.families.flux import pack, positions, unpack
from pipelines.models.families.loaded import stack
from support.tiny import FAMILIES, KINDS, family_at

TEXTS = ["a red circle", "two blue squares"]
DIFFUSION = ("sd15", "sdxl")
FRAME = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
PACKED = ("flux", "qwen-image")  # as tokens of 2x2 latents, and told t itself
CLIPS = tuple(name for name in FAMILIES if KINDS[name].frame_multiple is not None)
SHAPES = dict.fromkeys(FAMILIES, (4, 4, 6)) | {
    "flux2-klein": (16, 2, 3),
    **dict.fromkeys(CLIPS, (4, 2, 4, 6)),
    "miniature": (3, 24, 24),
}
NEAR = {"rtol": 1e-4, "atol": 1e-5}


def called(loaded, *, guidance, steps=3, output_type="latent", **options):
    """The pipeline's own call: texts in, one seed a sample; latents as the family has them."""
    seeds = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    given = {"num_inference_steps": steps, "guidance_scale": guidance, "generator": seeds, "output_type": output_type}
    if loaded.family.name == "miniature":
        return loaded.pipeline(TEXTS, **given | {"output_type": "pt" if output_type == "latent" else "np"}).images
    if loaded.family.frame_multiple is not None:
        given["num_frames"] = 5
    height, width = size_of(loaded.family)
    if loaded.family.reads_first_frame:
        encoded = (loaded.encode_texts(texts) for texts in (TEXTS, [""] * len(TEXTS)))
        tokens, free = (stack(each)["tokens"] for each in encoded)
        given |= {"prompt_embeds": tokens, "negative_prompt_embeds": free}
        given["image"] = Pillow.fromarray(FRAME[:height, :width])
    if loaded.family.name == "qwen-image":
        given |= {"guidance_scale": None, "true_cfg_scale": guidance, "negative_prompt": [""] * len(TEXTS)}
    texts = {} if "prompt_embeds" in given else {"prompt": list(TEXTS)}  # its own reading of texts needs ftfy
    found = loaded.pipeline(**texts, height=height, width=width, **given, **options)
    found = found.images if loaded.family.frame_multiple is None else found.frames
    return family_latents(loaded, found) if output_type == "latent" else found


def family_latents(loaded, latents):
    """Latents that a pipeline's call returns, as the family has them."""
    if loaded.family.name in PACKED:
        return unpack(latents, height=4, width=6)
    if loaded.family.name == "flux2-klein":
        vae = loaded.pipeline.vae
        return (torch.nn.functional.pixel_unshuffle(latents, 2) - vae.bn.running_mean.view(1, -1, 1, 1)) / torch.sqrt(
            vae.bn.running_var.view(1, -1, 1, 1) + vae.config.batch_norm_eps
        )
    return latents


def size_of(family):
    """Height and width of a picture that is not square."""
    return (64, 96) if family.vae_factor == 16 else (32, 48)


def conditions_of(loaded):
    """The conditions of TEXTS, with FRAME as the first frame where the family reads one."""
    height, width = size_of(loaded.family)
    clip = np.zeros((5, height, width, 3), dtype=np.uint8)
    clip[0] = FRAME[:height, :width]
    first = loaded.encode_media(clip) if loaded.family.reads_first_frame else {}
    first.pop("latent", None)
    return [text | first for text in loaded.encode_texts(TEXTS)]


def overheard(loaded, **options):
    """(x, timestep, answer) of each call of the denoiser during the pipeline's own call, in the family's terms."""
    heard = []

    def listen(_, positional, named, answer):
        if loaded.family.name == "z-image":  # lists, the time that is left, and the opposite direction
            x, answer = (torch.stack(list(each)).squeeze(2) for each in (positional[0], answer[0]))
            heard.append((x, 1000 * (1 - positional[1]), -answer))
            return
        x = positional[0] if positional else named["hidden_states"]
        timestep = named["timestep"] if "timestep" in named else positional[-1]
        if timestep.ndim == 2:  # of each token, those of the first frame first
            timestep = timestep[:, -1]
        x, timestep, answer = x.clone(), timestep.float().expand(2), answer[0].clone()
        if loaded.family.name == "wan-i2v":  # a mask and the first frame's latents lie beside it
            x = x[:, : answer.shape[1]]
        if loaded.family.name in PACKED:
            x, answer, timestep = *(unpack(each, height=4, width=6) for each in (x, answer)), 1000 * timestep
        if loaded.family.name == "flux2-klein":
            x, answer, timestep = *(each.mT.unflatten(2, (2, 3)) for each in (x, answer)), 1000 * timestep
        heard.append((x, timestep, answer))

    handle = loaded.model.register_forward_hook(listen, with_kwargs=True)
    try:
        called(loaded, **options)
    finally:
        handle.remove()
    return heard


@pytest.mark.parametrize("name", FAMILIES)
def test_a_prediction_is_what_the_pipeline_computes_at_that_time(whole, name):
    loaded = whole[name]
    told = 3.5 if name in ("flux", "hunyuanvideo") else loaded.unguided
    condition = stack(conditions_of(loaded))
    for x, timestep, answer in overheard(loaded, guidance=told):
        t = (timestep + 0.5 * (name in DIFFUSION)) / 1000  # any time within an integer step is that step
        sample = PathSample(x_t=x, target=x, t=t)
        with torch.no_grad():
            found = loaded.predict(loaded.model, sample, condition=condition, guidance=told)
        if name == "wan2.2-i2v":  # a known first frame has no answer that is read
            found, answer = found[:, :, 1:], answer[:, :, 1:]
        torch.testing.assert_close(found, answer, **NEAR)


@pytest.mark.parametrize("name", FAMILIES)
def test_sampling_is_the_pipelines_own(whole, name):
    loaded = whole[name]
    found = loaded.sample(
        loaded.model,
        conditions_of(loaded),
        negative=loaded.unconditional(),
        shape=SHAPES[name],
        steps=4,
        guidance=3.0,
        seeds=[1, 2],
    )
    torch.testing.assert_close(found, called(loaded, guidance=3.0, steps=4), **NEAR)
    pictures = called(loaded, guidance=3.0, steps=4, output_type="np")
    if name != "miniature":
        pictures = np.round(255 * pictures).astype(int)
    off = np.abs(loaded.decode(found).astype(int) - np.reshape(pictures, loaded.decode(found).shape))
    assert off.max() <= 1
    assert off.mean() < 0.01


def test_sampling_calls_the_denoiser_as_it_was_wrapped_and_leaves_its_mode(whole):
    loaded = whole["sd3"]

    class Wrapped(torch.nn.Module):
        calls = 0

        def __init__(self):
            super().__init__()
            self.inner = copy.deepcopy(loaded.model)

        def forward(self, *args, **kwargs):
            self.calls += 1
            assert not self.training
            return self.inner(*args, **kwargs)

    model, texts = Wrapped().train(), loaded.encode_texts(TEXTS)
    given = {"shape": SHAPES["sd3"], "steps": 3, "seeds": [1, 2]}
    guided = loaded.sample(model, texts, negative=None, guidance=5.0, **given)
    assert (model.calls, model.training) == (3, True)
    free = loaded.sample(model, texts, negative=loaded.unconditional(), guidance=1.0, **given)
    assert torch.equal(guided, free)


def test_sdxl_reads_each_pictures_size_before_resizing_and_its_crop_as_its_pipeline_does(whole):
    loaded = whole["sdxl"]
    condition = stack(loaded.encode_texts(TEXTS))
    given, answers = [], []
    for size, crop in (((512, 384), (3, 40)), ((32, 48), (0, 0))):
        x, timestep, answer = overheard(loaded, guidance=1.0, original_size=size, crops_coords_top_left=crop)[0]
        given.append([*size, *crop])
        answers.append(answer)
    sample = PathSample(x_t=x, target=x, t=(timestep + 0.5) / 1000)
    with torch.no_grad():
        found = loaded.predict(loaded.model, sample, condition=condition | {SIZES: torch.tensor(given)})
        whole_pictures = loaded.predict(loaded.model, sample, condition=condition)
    torch.testing.assert_close(found[0], answers[0][0], **NEAR)
    torch.testing.assert_close(found[1], answers[1][1], **NEAR)
    torch.testing.assert_close(whole_pictures, answers[1], **NEAR)
    assert not torch.allclose(answers[0], answers[1], **NEAR)


def test_flux_is_told_its_guidance(whole):
    loaded = whole["flux"]
    condition, x = stack(loaded.encode_texts(TEXTS)), torch.randn(2, *SHAPES["flux"])
    sample = PathSample(x_t=x, target=x, t=torch.tensor([0.3, 0.7]))
    with torch.no_grad():
        found = [loaded.predict(loaded.model, sample, condition=condition, guidance=g) for g in (1.0, 3.5)]
        default = loaded.predict(loaded.model, sample, condition=condition)
    assert torch.equal(default, found[0])
    assert not torch.allclose(*found)


def test_a_known_first_frame_has_no_error_and_its_answer_no_gradient(tiny):
    loaded = family_at("wan2.2-i2v", tiny["wan2.2-i2v"]).load(parts="denoiser", device="cpu", dtype=torch.float32)
    x, noise = torch.randn(2, 2, *SHAPES["wan2.2-i2v"]).unbind()
    sample = loaded.path.sample(x, noise=noise, t=torch.tensor([0.3, 0.8]))
    condition = {"tokens": torch.randn(2, 14, 32), "first": x[:, :, :1]}
    loaded.model.requires_grad_(True)
    found = loaded.predict(loaded.model, sample, condition=condition)
    torch.testing.assert_close(found[:, :, :1], sample.target[:, :, :1], **NEAR)
    grad = torch.autograd.grad(found[:, :, :1].sum() + 0 * found.sum(), loaded.model.proj_out.weight)[0]
    assert grad.abs().max() == 0


def test_a_distilled_klein_is_not_guided(tiny, tmp_path):
    folder = shutil.copytree(tiny["flux2-klein"], tmp_path / "distilled")
    index = folder / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"is_distilled": True}))
    loaded = family_at("flux2-klein", folder).load(parts="all", device="cpu", dtype=torch.float32)
    given = {"shape": SHAPES["flux2-klein"], "steps": 4, "seeds": [1, 2], "negative": loaded.unconditional()}
    found = loaded.sample(loaded.model, loaded.encode_texts(TEXTS), guidance=4.0, **given)
    torch.testing.assert_close(found, called(loaded, guidance=4.0, steps=4), **NEAR)


def test_the_shift_of_klein_is_that_of_fifty_steps(whole):
    loaded = whole["flux2-klein"]
    scheduler = copy.deepcopy(loaded.pipeline.scheduler)
    loaded.set_timesteps(scheduler, steps=50, shape=(16, 64, 64), device="cpu")
    expected = shift_times(torch.linspace(1, 0.02, 50), shift=loaded.time_shift((16, 64, 64)))
    torch.testing.assert_close(scheduler.sigmas[:50].float(), expected, rtol=1e-4, atol=1e-4)


def test_texts_of_different_lengths_are_padded_and_marked():
    found = stack([{"tokens": torch.ones(length, 3), "pooled": torch.ones(2)} for length in (2, 4)])
    assert found["mask"].tolist() == [[True, True, False, False], [True] * 4]
    assert found["tokens"][0, 2:].abs().max() == 0
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        "tokens": (2, 4, 3), "mask": (2, 4), "pooled": (2, 2),
    }  # fmt: skip


def test_packing_is_the_pipelines_and_unpacking_its_inverse(whole):
    pipeline, latents = whole["flux"].pipeline, torch.randn(2, 4, 6, 10)
    packed = pack(latents)
    assert torch.equal(packed, pipeline._pack_latents(latents, 2, 4, 6, 10))
    assert torch.equal(unpack(packed, height=6, width=10), latents)
    expected = pipeline._prepare_latent_image_ids(2, 3, 5, "cpu", torch.float32)
    assert torch.equal(positions(3, 5).float(), expected)


@pytest.mark.parametrize("name", ["sd3", "flux", "z-image", "wan", "wan2.2-ti2v", "hunyuanvideo", "miniature"])
def test_the_shift_is_that_of_the_schedulers_own_times(whole, name):
    loaded, shape = whole[name], (4, 64, 64)
    scheduler = copy.deepcopy(loaded.pipeline.scheduler)
    loaded.set_timesteps(scheduler, steps=4, shape=shape, device="cpu")
    falling = name in ("flux", "z-image", "hunyuanvideo", "miniature")
    uniform = torch.linspace(1, 0.25, 4) if falling else torch.linspace(1, 0.001, 5)[:-1]
    if name == "sd3":
        uniform = torch.linspace(1, scheduler.config.shift / (1000 + scheduler.config.shift - 1), 4)
    expected = shift_times(uniform, shift=loaded.time_shift(shape))
    torch.testing.assert_close(scheduler.sigmas[:4].float(), expected, rtol=1e-4, atol=1e-4)


def test_published_shifts():
    import math

    from pipelines.models.families.schedule import time_shift

    flux = {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}
    assert time_shift(flux, tokens=256) == pytest.approx(math.exp(0.5))
    assert time_shift(flux, tokens=4096) == pytest.approx(math.exp(1.15))
    assert time_shift(flux | {"time_shift_type": "linear"}, tokens=4096) == pytest.approx(1.15)
    assert time_shift({"shift": 3.0}, tokens=4096) == 3.0
    assert time_shift({"flow_shift": 5.0}, tokens=4096) == 5.0


def test_diffusion_has_no_shift(whole):
    assert whole["sdxl"].time_shift((4, 128, 128)) == 1.0


@pytest.mark.parametrize("name", FAMILIES)
def test_a_condition_depends_on_its_text_alone(whole, name):
    loaded = whole[name]
    alone, together = loaded.encode_texts(TEXTS[:1])[0], loaded.encode_texts(TEXTS)
    assert all(torch.equal(alone[key], together[0][key]) for key in alone)
    assert not torch.equal(together[0]["tokens"], together[1]["tokens"])
    assert {str(value.device) for value in alone.values()} == {"cpu"}


@pytest.mark.parametrize("name", FAMILIES)
def test_low_rank_additions_reload_through_the_pipeline_exactly(tiny, tmp_path, name):
    from peft import LoraConfig, get_peft_model_state_dict

    family = family_at(name, tiny[name])
    first, second = (family.load(parts="denoiser", device="cpu", dtype=torch.float32) for _ in range(2))
    linear = [key for key, module in first.model.named_modules() if isinstance(module, torch.nn.Linear)]
    assert all(any(key.endswith(f".{target}") for key in linear) for target in family.lora_targets)
    first.model.add_adapter(LoraConfig(r=2, lora_alpha=6, target_modules=list(family.lora_targets)))
    with torch.no_grad():
        for key, value in first.model.named_parameters():
            if "lora_B" in key:
                value.normal_(std=0.5, generator=torch.Generator().manual_seed(0))
    layers, metadata = get_peft_model_state_dict(first.model), first.model.peft_config["default"].to_dict()
    first.save_lora(layers, metadata=metadata, folder=tmp_path)
    plain = predicted(second)
    second.pipeline.load_lora_weights(str(tmp_path), use_safetensors=True)
    assert torch.equal(predicted(first), predicted(second))
    assert not torch.allclose(plain, predicted(second), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("name", FAMILIES)
def test_checkpointing_changes_no_gradient(tiny, name):
    family = family_at(name, tiny[name])
    found = []
    for checkpointing in (False, True):
        loaded = family.load(parts="denoiser", device="cpu", dtype=torch.float32)
        if checkpointing:
            loaded.checkpointing()
        loaded.model.requires_grad_(True).train()
        predicted(loaded).square().mean().backward()
        found.append({key: value.grad for key, value in loaded.model.named_parameters() if value.grad is not None})
    assert found[0].keys() == found[1].keys()
    assert len(found[0]) > 10
    for key, gradient in found[0].items():
        torch.testing.assert_close(found[1][key], gradient)


@pytest.mark.parametrize("name", FAMILIES)
def test_half_precision_answers_as_single_does_by_dtype_and_by_autocast(tiny, name):
    family = family_at(name, tiny[name])
    single, half = (family.load(parts="denoiser", device="cpu", dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    with torch.no_grad():
        exact, rounded = predicted(single), predicted(half)
        with torch.autocast("cpu", torch.bfloat16):
            cast = predicted(single)
    for found in (rounded, cast):
        assert (found.float() - exact).square().mean() < 1e-3 * exact.square().mean()


WIDTHS = dict.fromkeys(FAMILIES, (32,)) | {
    "sdxl": (56, 24),
    "sd3": (64, 56),
    "flux": (32, 32),
    "flux2-klein": (96,),
    "hunyuanvideo": (32, 32),
    "miniature": (32, 32),
}


def predicted(loaded):
    """A prediction at fixed random inputs, without text encoders."""
    name, generator = loaded.family.name, torch.Generator().manual_seed(0)
    x = torch.randn(2, *SHAPES[name], generator=generator)
    condition = {"tokens": torch.randn(2, 14, WIDTHS[name][0], generator=generator)}
    if len(WIDTHS[name]) > 1:
        condition["pooled"] = torch.randn(2, WIDTHS[name][1], generator=generator)
    if name == "hunyuanvideo":
        condition["mask"] = (torch.arange(14) < torch.tensor([[9], [14]])).float()
    if name == "wan2.2-i2v":
        condition["first"] = x[:, :, :1]
    if name == "wan-i2v":
        condition |= {"first": x, "picture": torch.randn(2, 5, 16, generator=generator)}
    sample = loaded.path.sample(x, noise=torch.randn(x.shape, generator=generator), t=torch.tensor([0.3, 0.8]))
    return loaded.predict(loaded.model, sample, condition=condition)
