"""Latents are what the pipelines would decode."""

import numpy as np
import pytest
import torch

from infra.config import ConfigError
from support.tiny import family_at

CLIPS = ("wan", "wan2.2-ti2v", "wan-i2v", "hunyuanvideo")
PICTURES = ("sd15", "sdxl", "sd3", "flux", "z-image")


def pixels(frames=1, height=32, width=48, *, count=2, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, frames, height, width, 3), dtype=np.uint8)


def floats(given):
    return torch.from_numpy(given).permute(0, 4, 1, 2, 3).float() / 127.5 - 1


@pytest.mark.parametrize("name", PICTURES)
def test_the_pipelines_formula_brings_latents_back_to_the_posteriors_mean(whole, name):
    loaded, given = whole[name], pixels()
    vae = loaded.pipeline.vae
    with torch.no_grad():
        mean = vae.encode(floats(given)[:, :, 0]).latent_dist.mean
    found = loaded.encode_pixels(given)
    assert found.shape == (2, 4, 4, 6)
    torch.testing.assert_close(found / vae.config.scaling_factor + (vae.config.shift_factor or 0), mean)
    assert torch.equal(found, loaded.encode_pixels(given))


def test_statistics_of_an_sdxl_vae_are_those_of_the_pipeline(tiny):
    loaded, given = family_at("sdxl", tiny["sdxl"]).load(parts="decoder", device="cpu", dtype=torch.float32), pixels()
    plain = loaded.encode_pixels(given) / 0.13025
    mean, std = [0.5, -0.25, 1.0, 0.0], [2.0, 0.5, 1.5, 3.0]
    before = loaded.decode(0.13025 * plain)
    loaded.pipeline.vae.register_to_config(latents_mean=mean, latents_std=std)
    found = loaded.encode_pixels(given)
    back = found * torch.tensor(std).view(1, 4, 1, 1) / 0.13025 + torch.tensor(mean).view(1, 4, 1, 1)
    torch.testing.assert_close(back, plain)
    assert np.abs(loaded.decode(found).astype(int) - before).max() <= 1


@pytest.mark.parametrize(("name", "frames"), [("wan", 9), ("wan2.2-ti2v", 9), ("wan-i2v", 9), ("qwen-image", 1)])
def test_latents_with_statistics_are_normalised_as_the_pipeline_undoes(whole, name, frames):
    loaded, given = whole[name], pixels(frames=frames, height=64, width=96)
    vae = loaded.pipeline.vae
    with torch.no_grad():
        mean = vae.encode(floats(given)).latent_dist.mean
    found = loaded.encode_pixels(given)
    shape = loaded.family.latent_shape(frames=frames, height=64, width=96)
    assert found.shape == (2, *shape)
    shift, spread = (torch.tensor(each).view(1, -1, 1, 1, 1) for each in (vae.config.latents_mean, vae.config.latents_std))
    torch.testing.assert_close(found.reshape(mean.shape) * spread + shift, mean)
    assert loaded.decode(found).shape == given.shape


@pytest.mark.parametrize("name", ["wan", "wan2.2-ti2v"])
def test_a_clips_first_latent_is_that_of_its_first_frame(whole, name):
    loaded, given = whole[name], pixels(frames=5, height=64, width=96)
    torch.testing.assert_close(loaded.encode_pixels(given)[:, :, :1], loaded.encode_pixels(given[:, :1]))


@pytest.mark.parametrize("name", [*PICTURES, "flux2-klein", "qwen-image", *CLIPS])
def test_decoding_gives_pixels_of_the_size_encoded(whole, name):
    given = pixels(height=64, width=96)
    found = whole[name].decode(whole[name].encode_pixels(given))
    assert (found.shape, found.dtype) == (given.shape, np.uint8)


def test_the_miniatures_latents_are_its_pixels(whole):
    loaded, given = whole["miniature"], pixels(height=24, width=24)
    latents = loaded.encode_pixels(given)
    assert latents.shape == (2, 3, 24, 24)
    assert latents.abs().max() <= 1
    assert np.array_equal(loaded.decode(latents), given)
    assert loaded.family.vae_identity() == {"class": "pixels"}


def test_half_precision_is_close_to_single_and_a_fragile_vae_stays_single(tiny, whole):
    given, family = pixels(), family_at("sdxl", tiny["sdxl"])
    single = whole["sdxl"].encode_pixels(given)
    brain = family.load(parts="decoder", device="cpu", dtype=torch.bfloat16)
    half = family.load(parts="decoder", device="cpu", dtype=torch.float16)
    assert (brain.pipeline.vae.dtype, half.pipeline.vae.dtype) == (torch.bfloat16, torch.float32)
    assert brain.encode_pixels(given).dtype == torch.bfloat16
    torch.testing.assert_close(brain.encode_pixels(given).float(), single, rtol=0.05, atol=0.02)
    torch.testing.assert_close(half.encode_pixels(given), single.half())


@pytest.mark.parametrize(
    ("name", "given", "problem"),
    [
        ("sd15", pixels(height=36), "sd15 takes multiples of 8 px, got 36x48"),
        ("flux", pixels(height=40), "flux takes multiples of 16 px, got 40x48"),
        ("sd3", pixels(frames=5), "sd3 takes pictures, got a clip of 5 frames"),
        ("wan", pixels(frames=8), r"4k \+ 1 frames, got 8; cut them to 5"),
        ("wan", pixels()[:, 0], r"give uint8\[batch, frames, height, width, 3\]"),
        ("wan", pixels() / 255, "pixels are float64"),
        ("miniature", pixels(height=48), "24x24 px"),
    ],
)
def test_sizes_and_lengths_that_do_not_fit_are_refused(whole, name, given, problem):
    with pytest.raises(ConfigError, match=problem):
        whole[name].encode_pixels(given)
