"""Both paths between data and noise as one protocol, and the table of diffusion against diffusers."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipelines.algorithms.diffusion.ddpm import DiffusionPath
from pipelines.algorithms.diffusion.path import FlowPath, NoisePath, spread

TABLE = torch.linspace(0.9, 0.1, 10)
PATHS: list[NoisePath] = [FlowPath(), DiffusionPath(TABLE, "epsilon"), DiffusionPath(TABLE, "v_prediction")]
of_every_path = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.prediction)


def material(shape=(4, 3, 5, 5), *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return *(torch.randn(shape, generator=generator) for _ in range(2)), torch.rand(shape[0], generator=generator)


@of_every_path
def test_every_sample_has_a_time_of_its_own(path):
    x_0, noise, t = material()
    whole = path.sample(x_0, noise=noise, t=t)
    for place in range(4):
        where = slice(place, place + 1)
        alone = path.sample(x_0[where], noise=noise[where], t=t[where])
        assert torch.equal(alone.x_t, whole.x_t[where]) and torch.equal(alone.target, whole.target[where])


@of_every_path
def test_clips_are_noised_like_pictures(path):
    x_0, noise, t = material((4, 3, 2, 5, 5))
    frames = path.sample(x_0[:, :, 1], noise=noise[:, :, 1], t=t)
    assert torch.equal(path.sample(x_0, noise=noise, t=t).x_t[:, :, 1], frames.x_t)


@of_every_path
def test_half_precision_data_stay_so_and_times_do_not_join_them(path):
    x_0, noise, t = material()
    sample = path.sample(x_0.bfloat16(), noise=noise.bfloat16(), t=t)
    assert sample.x_t.dtype == torch.bfloat16
    assert torch.equal(sample.t, t)
    exact = path.sample(x_0.bfloat16().float(), noise=noise.bfloat16().float(), t=t)
    assert torch.equal(sample.x_t, exact.x_t.bfloat16())  # rounded once, at the end


def test_a_flow_denoiser_is_told_a_thousand_times_the_time():
    assert FlowPath().timesteps(torch.tensor([0.0, 0.25, 1.0])).tolist() == [0.0, 250.0, 1000.0]


@given(k=st.integers(0, 9))
def test_a_diffusion_denoiser_is_told_the_step_its_time_lies_in(k):
    t = torch.tensor([(k + 0.5) / 10])
    assert DiffusionPath(TABLE, "epsilon").timesteps(t).tolist() == [k]


def test_the_ends_of_time_are_the_first_and_the_last_step():
    assert DiffusionPath(TABLE, "epsilon").timesteps(torch.tensor([0.0, 1.0])).tolist() == [0, 9]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_diffusion_is_that_of_diffusers(prediction):
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    x_0, noise, t = material()
    path = DiffusionPath(scheduler.alphas_cumprod, prediction)
    sample, steps = path.sample(x_0, noise=noise, t=t), path.timesteps(t)
    torch.testing.assert_close(sample.x_t, scheduler.add_noise(x_0, noise, steps))
    target = noise if prediction == "epsilon" else scheduler.get_velocity(x_0, noise, steps)
    torch.testing.assert_close(sample.target, target)


def test_noise_and_v_tell_the_same_data():
    x_0, noise, t = material()
    v = DiffusionPath(TABLE, "v_prediction").sample(x_0, noise=noise, t=t)
    share = spread(TABLE[DiffusionPath(TABLE, "epsilon").timesteps(t)], like=x_0)
    torch.testing.assert_close(share.sqrt() * v.x_t - (1 - share).sqrt() * v.target, x_0, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close((1 - share).sqrt() * v.x_t + share.sqrt() * v.target, noise, atol=1e-5, rtol=1e-5)


@of_every_path
def test_the_right_prediction_gives_the_data_back(path):
    x_0, noise, t = material()
    sample = path.sample(x_0, noise=noise, t=t)
    assert torch.allclose(path.clean(sample.target, x_t=sample.x_t, t=t), x_0, atol=1e-4)
