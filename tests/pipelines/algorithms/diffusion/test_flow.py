"""Laws of the straight path, of its errors and of the times it is trained at."""

import numpy as np
import pytest
import torch

from infra.config import ConfigError
from pipelines.algorithms.diffusion.flow import LogitNormalTimes, UniformTimes, shift_times
from pipelines.algorithms.diffusion.path import FlowPath, per_sample_error


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def some_path(generator, *, shape=(4, 3, 5, 5)):
    x_0, noise = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
    t = torch.rand(shape[0], generator=generator)
    return x_0, noise, FlowPath().sample(x_0, noise=noise, t=t)


def test_the_path_starts_at_the_data_and_ends_at_the_noise(generator):
    x_0, noise, _ = some_path(generator)
    assert torch.equal(FlowPath().sample(x_0, noise=noise, t=torch.zeros(4)).x_t, x_0)
    assert torch.equal(FlowPath().sample(x_0, noise=noise, t=torch.ones(4)).x_t, noise)


def test_the_velocity_is_the_derivative_of_the_path_in_time(generator):
    x_0, noise, path = some_path(generator)
    later = FlowPath().sample(x_0, noise=noise, t=path.t + 0.25)
    torch.testing.assert_close((later.x_t - path.x_t) / 0.25, path.target, atol=1e-5, rtol=1e-5)


def test_the_error_is_a_mean_over_every_axis_of_a_video():
    prediction, target = torch.zeros(2, 3, 4, 5, 6), torch.zeros(2, 3, 4, 5, 6)
    prediction[1] = 2.0
    assert per_sample_error(prediction, target=target).tolist() == [0.0, 4.0]


def test_the_error_of_half_precision_is_taken_in_fp32():
    prediction = torch.full((1, 1000), 300.0, dtype=torch.float16)
    error = per_sample_error(prediction, target=torch.zeros_like(prediction))
    assert error.dtype == torch.float32
    assert error.item() == 90_000.0  # above the largest fp16


def test_times_that_do_not_fit_the_batch_are_refused(generator):
    x_0, noise, _ = some_path(generator)
    with pytest.raises(Exception, match=r"batch|shape|size"):
        FlowPath().sample(x_0, noise=noise, t=torch.rand(3))


def test_uniform_times_fill_their_interval(generator):
    t = UniformTimes(low=0.2, high=0.6).sample(20_000, generator=generator)
    assert 0.2 <= t.min() < 0.205
    assert 0.595 < t.max() <= 0.6
    assert t.mean().item() == pytest.approx(0.4, abs=0.005)


def test_logit_normal_times_have_a_normal_logit(generator):
    logit = torch.logit(LogitNormalTimes(mean=0.5, std=2.0).sample(50_000, generator=generator).double())
    assert logit.mean().item() == pytest.approx(0.5, abs=0.05)
    assert logit.std().item() == pytest.approx(2.0, abs=0.05)


@pytest.mark.parametrize("sampler", [UniformTimes(), LogitNormalTimes(shift=3.0)])
def test_the_same_generator_gives_the_same_times(sampler):
    first = sampler.sample(5, generator=torch.Generator().manual_seed(3))
    again = sampler.sample(5, generator=torch.Generator().manual_seed(3))
    assert torch.equal(first, again)


@pytest.mark.parametrize("kind", [UniformTimes, LogitNormalTimes])
def test_a_shift_moves_the_times_of_the_same_draw(kind):
    plain, fixed, own = (
        kind(**shift).sample(7, generator=torch.Generator().manual_seed(3), own_shift=3.0)
        for shift in ({}, {"shift": 3.0}, {"shift": "generator"})
    )
    assert torch.equal(fixed, shift_times(plain, shift=3.0))
    assert torch.equal(own, fixed)


@pytest.mark.parametrize("shift", [0.0, -1.0, "scheduler"])
def test_a_shift_that_is_none_is_refused(shift):
    with pytest.raises(ConfigError, match="UniformTimes"):
        UniformTimes(shift=shift)


def test_a_shift_of_one_is_none_to_the_last_bit():
    t = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(shift_times(t, shift=1.0), t)


def test_an_empty_interval_of_times_is_refused():
    with pytest.raises(ConfigError, match="swap"):
        UniformTimes(low=0.9, high=0.1)


def test_shifts_compose_by_multiplication():
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    torch.testing.assert_close(shift_times(shift_times(t, shift=2.0), shift=3.0), shift_times(t, shift=6.0))


def test_shifted_times_are_the_ones_that_diffusers_samples_at():
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / 8, 8).tolist())
    times = torch.linspace(1, 0, 9, dtype=torch.float64)
    torch.testing.assert_close(shift_times(times, shift=3.0).float(), scheduler.sigmas, atol=1e-6, rtol=1e-6)
