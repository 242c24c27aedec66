"""Laws of the stochastic step: without noise it is Euler's, with noise it keeps the data's variance."""

import math

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

from infra.config import ConfigError
from pipelines.algorithms.diffusion.ddpm import DiffusionPath
from pipelines.algorithms.diffusion.path import FlowPath
from pipelines.algorithms.diffusion.stochastic import DDIM, Dance, FlowSDE, kl, log_prob

FLOW = FlowPath()


def draws(*, shape=(4, 3, 5, 5)):
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(shape, generator=generator) for _ in range(3)]


def test_without_noise_it_is_the_step_of_the_euler_scheduler_bit_for_bit():
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(7)
    scheduler.set_begin_index(0)
    x, v, _ = draws()
    theirs = ours = x
    for place, timestep in enumerate(scheduler.timesteps):
        theirs = scheduler.step(v * (place + 1), timestep, theirs, return_dict=False)[0]
        s, s_next = (scheduler.sigmas[k].expand(4) for k in (place, place + 1))
        for step in (FlowSDE(a=0.0), Dance(eta=0.0), FlowSDE().still):
            move = step.move(ours, v * (place + 1), s=s, s_next=s_next, path=FLOW)
            assert torch.equal(move.mean, theirs)
            assert not move.sd.any()
        ours = theirs


def test_dance_is_the_flow_step_with_a_constant_std():
    x, v, _ = draws()
    s, s_next = torch.tensor([1.0, 0.9, 0.5, 0.1]), torch.tensor([0.9, 0.7, 0.4, 0.02])
    std = FlowSDE(a=0.7).std(s, s_next=s_next)
    for k in range(4):
        one = slice(k, k + 1)
        given = {"s": s[one], "s_next": s_next[one], "path": FLOW}
        flow = FlowSDE(a=0.7).move(x[one], v[one], **given)
        dance = Dance(eta=float(std[k])).move(x[one], v[one], **given)
        torch.testing.assert_close(dance.mean, flow.mean)
        torch.testing.assert_close(dance.sd, flow.sd)


def test_the_first_step_takes_the_next_time_in_the_denominator():
    s, s_next = torch.tensor([1.0, 0.8]), torch.tensor([0.8, 0.5])
    assert FlowSDE(a=0.7).std(s, s_next=s_next).tolist() == pytest.approx([0.7 * 5**0.5, 0.7 * 2])
    below = torch.tensor([0.999999, 0.8])  # where UniPC begins
    assert FlowSDE(a=0.7).std(below, s_next=s_next).tolist() == pytest.approx([0.7 * 5**0.5, 0.7 * 2], rel=1e-5)


def final_variance(steps, *, first, s2=0.5, a=0.7):
    """Exact variance of the samples of N(0, s2), whose velocity is x (t - (1 - t) s2) / ((1 - t)^2 s2 + t^2)."""
    times = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    variance = 1.0
    for k in range(steps):
        s, s_next = times[k : k + 1], times[k + 1 : k + 2]
        x = torch.ones(1, 1, dtype=torch.float64)
        v = x * (s - (1 - s) * s2) / ((1 - s) ** 2 * s2 + s**2)
        noisy = first <= k < steps - 1
        move = (FlowSDE(a=a) if noisy else FlowSDE(a=0.0)).move(x, v, s=s, s_next=s_next, path=FLOW)
        variance = float(move.mean) ** 2 * variance + float(move.sd) ** 2
    return variance


def test_the_variance_of_gaussian_data_converges_to_the_datas_unless_the_first_step_is_stochastic():
    coarse, fine = (abs(final_variance(steps, first=steps // 10) - 0.5) for steps in (100, 1000))
    assert fine < 0.003
    assert fine < coarse / 5
    assert abs(final_variance(1000, first=0) - 0.5) > fine


def test_the_log_probability_of_a_drawn_point_depends_on_its_noise_and_sd_alone():
    x, v, z = draws()
    s, s_next = torch.full((4,), 0.6), torch.full((4,), 0.5)
    move = FlowSDE().move(x, v, s=s, s_next=s_next, path=FLOW)
    expected = -z.square().flatten(1).mean(1) / 2 - move.sd.log() - math.log(2 * math.pi) / 2
    torch.testing.assert_close(log_prob(move.point(z), move=move), expected, atol=1e-5, rtol=1e-5)
    normal = torch.distributions.Normal(move.mean, move.sd.view(-1, 1, 1, 1))
    torch.testing.assert_close(log_prob(z, move=move), normal.log_prob(z).flatten(1).mean(1))


def test_a_step_without_noise_has_no_density():
    x, v, _ = draws()
    move = FlowSDE(a=0.0).move(x, v, s=torch.full((4,), 0.6), s_next=torch.full((4,), 0.5), path=FLOW)
    with pytest.raises(ValueError, match="no density"):
        log_prob(x, move=move)


def test_the_kl_is_the_gaussians_own_and_the_public_form_forgets_the_step_length():
    x, v, u = draws()
    given = {"s": torch.full((4,), 0.6), "s_next": torch.full((4,), 0.35), "path": FLOW}
    policy, reference = FlowSDE().move(x, v, **given), FlowSDE().move(x, u, **given)
    sd = policy.sd.view(-1, 1, 1, 1)
    exact = torch.distributions.kl_divergence(
        torch.distributions.Normal(policy.mean, sd), torch.distributions.Normal(reference.mean, sd)
    )
    torch.testing.assert_close(kl(policy, reference=reference.mean), exact.flatten(1).mean(1))
    std = FlowSDE().std(given["s"], s_next=given["s_next"])
    public = (policy.mean - reference.mean).square().flatten(1).mean(1) / (2 * std.square())
    torch.testing.assert_close(kl(policy, reference=reference.mean, without_dt=True), public)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("at_one", [True, False])
def test_ddim_is_the_step_of_diffusers_scheduler(prediction, eta, at_one):
    options = {"beta_schedule": "scaled_linear", "clip_sample": False, "set_alpha_to_one": at_one, "steps_offset": 1}
    scheduler = DDIMScheduler(**options, prediction_type=prediction)
    scheduler.set_timesteps(10)
    path = DiffusionPath(
        alphas_cumprod=scheduler.alphas_cumprod, prediction=prediction, final=float(scheduler.final_alpha_cumprod)
    )
    x, answer, z = draws()
    times = [(int(k) + 0.5) / 1000 for k in scheduler.timesteps] + [0.0]
    for place, timestep in enumerate(scheduler.timesteps):
        theirs = scheduler.step(answer, timestep, x, eta=eta, variance_noise=z, return_dict=False)[0]
        s, s_next = (torch.full((4,), times[k]) for k in (place, place + 1))
        move = DDIM(eta=eta).move(x, answer, s=s, s_next=s_next, path=path)
        torch.testing.assert_close(move.point(z), theirs, atol=2e-5, rtol=2e-5)


def test_a_step_on_another_kind_of_path_is_refused():
    x, v, _ = draws()
    given = {"s": torch.full((4,), 0.6), "s_next": torch.full((4,), 0.5)}
    with pytest.raises(ConfigError, match="use FlowSDE"):
        DDIM().move(x, v, **given, path=FLOW)
    with pytest.raises(ConfigError, match="use DDIM"):
        FlowSDE().move(x, v, **given, path=DiffusionPath(alphas_cumprod=torch.linspace(1, 0.1, 9), prediction="epsilon"))
