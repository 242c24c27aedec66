"""Laws of Flow-NRG: on Gaussian data it shifts the mean and nothing else; without weight it changes no bit."""

from itertools import pairwise

import pytest
import torch

from infra.config import ConfigError
from pipelines.algorithms.diffusion.guidance import RewardGuidance, dimension_weights, weighted

S2, SLOPE = 0.5, 0.8


def integrated(x, *, guidance, steps):
    """Euler's path from noise; the reward of x_0 is SLOPE x_0, so of x_t it is SLOPE (1 - t) s2 x_t / variance of x_t."""
    times = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    clamped = 0
    for s, s_next in pairwise(times):
        variance = (1 - s) ** 2 * S2 + s**2
        t = s.expand(len(x))
        gradient = torch.full_like(x, SLOPE) * (1 - s) * S2 / variance
        guided = guidance.velocity(x * (s - (1 - s) * S2) / variance, gradient=gradient, t=t)
        clamped += int(guided.clamped[0])
        x = x + (s_next - s) * guided.velocity
    return x, clamped


def test_on_gaussian_data_the_mean_moves_by_weight_slope_and_variance_and_the_variance_stays():
    x = torch.tensor([[-1.0], [0.0], [1.0]], dtype=torch.float64)  # the map is affine: mean at 0, scale from the others
    guided, _ = integrated(x, guidance=RewardGuidance(scale=2.0, limit=1e6), steps=4000)
    plain, _ = integrated(x, guidance=RewardGuidance(scale=0.0), steps=4000)
    assert float(guided[1]) == pytest.approx(2.0 * SLOPE * S2, rel=2e-3)
    torch.testing.assert_close(guided[2] - guided[0], plain[2] - plain[0])
    assert (float(plain[2]) ** 2) == pytest.approx(S2, rel=2e-3)


def test_weight_0_changes_no_bit():
    v, gradient = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)), torch.full((2, 3), torch.nan)
    t = torch.tensor([1.0, 0.4])
    assert torch.equal(RewardGuidance(scale=0.0).velocity(v, gradient=gradient, t=t).velocity, v)


def test_there_is_no_guidance_at_pure_noise_and_the_limit_near_it_is_reported():
    t = torch.tensor([1.0, 0.95, 0.5])
    guidance = RewardGuidance(scale=2.0, limit=9.0)
    assert guidance.factor(t).tolist() == [0.0, 18.0, 2.0]
    assert guidance.factor(torch.tensor([0.999999])).tolist() == [0.0]  # where UniPC begins
    assert guidance.velocity(torch.zeros(3, 1), gradient=torch.ones(3, 1), t=t).clamped.tolist() == [True, True, False]


def test_weights_are_chosen_by_name_and_not_normalised():
    names = ("vq", "mq", "ta")
    assert dimension_weights({"ta": 2.0, "vq": 1.0}, dimensions=names) == (1.0, 0.0, 2.0)
    assert sum(dimension_weights({}, dimensions=names)) == pytest.approx(1.0)
    scores = torch.tensor([[1.0, torch.nan, 3.0]])
    assert weighted(scores, weights=(1.0, 0.0, 2.0)).tolist() == [7.0]
    with pytest.raises(ConfigError, match="no dimension 'motion'"):
        dimension_weights({"motion": 1.0}, dimensions=names)
