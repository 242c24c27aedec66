"""Score enhancement: each formula against its closed form, and the laws that tie them to Bradley-Terry and to the path."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from infra.config import ConfigError
from pipelines.algorithms.diffusion.path import FlowPath, per_sample_error
from pipelines.algorithms.reward.bradley_terry import A_WINS, BradleyTerry
from pipelines.algorithms.reward.enhanced import Enhancement, bin_of, log_positive, predicted_target

logit = st.floats(-6, 6, width=32)
error = st.floats(0, 3, width=32)


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


@given(
    raw=st.tuples(logit, logit),
    errors=st.tuples(error, error),
    eta=st.floats(0.25, 3),
    form=st.sampled_from(["exp", "softplus"]),
)
def test_the_loss_of_equation_9_is_bradley_terry_on_eta_times_the_log_score(raw, errors, eta, form):
    enhancement = Enhancement(scale="absolute")
    logs = log_positive(torch.tensor(raw), form=form) - enhancement.penalty(torch.tensor(errors))
    lead = eta * (logs[:1] - logs[1:])
    found = BradleyTerry().losses(lead, outcome=torch.tensor([A_WINS]))
    # The letter of the paper, without logs: S of the head, eq. 7, eq. 8, eq. 9.
    positive = torch.exp(doubles(*raw)) if form == "exp" else torch.log1p(torch.exp(doubles(*raw)))
    enhanced = positive * torch.exp(-math.log(4) * doubles(*errors))
    winner, loser = enhanced**eta
    assert found.item() == pytest.approx(-math.log(winner / (winner + loser)), rel=1e-3, abs=1e-5)


def test_an_error_of_one_half_halves_the_score_at_the_papers_scale():
    assert Enhancement(scale="absolute").penalty(torch.tensor([0.5])).item() == pytest.approx(math.log(2))


@given(usual=st.floats(1e-4, 10), factor=st.floats(0.01, 100))
def test_a_relative_error_does_not_depend_on_the_unit_of_the_latents(usual, factor):
    enhancement = Enhancement()
    penalty = enhancement.penalty(torch.tensor([usual]), usual=torch.tensor([usual]))
    assert penalty.item() == pytest.approx(math.log(2), rel=1e-5)
    other = enhancement.penalty(torch.tensor([0.3 * usual * factor]), usual=torch.tensor([usual * factor]))
    assert other.item() == pytest.approx(0.3 * math.log(2), rel=1e-4)


def test_a_relative_error_without_the_usual_one_is_refused():
    with pytest.raises(ConfigError, match="measure it before training"):
        Enhancement().penalty(torch.tensor([0.5]))


def test_the_log_of_softplus_stays_finite_and_has_a_gradient_far_below_zero():
    raw = torch.tensor([-300.0, -20.0, -14.9, 0.0, 50.0], requires_grad=True)
    value = log_positive(raw, form="softplus")
    expected = [-300.0, -20.0, math.log(math.log1p(math.exp(-14.9))), math.log(math.log(2)), math.log(50)]
    assert value.tolist() == pytest.approx(expected, rel=1e-5)
    value.sum().backward()
    # d log softplus(r) / dr = sigma(r) / softplus(r): 1 far below, 1 / r far above.
    assert raw.grad.tolist() == pytest.approx([1, 1, 1, 0.5 / math.log(2), 1 / 50], rel=1e-4)


def test_half_precision_scores_are_compared_in_single_precision():
    assert log_positive(torch.tensor([1.0], dtype=torch.bfloat16), form="exp").dtype == torch.float32


def test_times_fall_into_ten_equal_bins_and_pure_noise_into_the_last():
    assert bin_of(torch.tensor([0.0, 0.05, 0.1001, 0.55, 0.9999, 1.0])).tolist() == [0, 0, 1, 5, 9, 9]


def points(s):
    generator = torch.Generator().manual_seed(0)
    x_0, noise = (torch.randn(3, 2, 4, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    return FlowPath().sample(x_0, noise=noise, t=doubles(*s)), x_0, noise


def test_after_an_euler_step_the_predicted_target_is_the_generators_velocity():
    s, later = (0.9, 0.5, 0.3), doubles(0.8, 0.2, 0.05)
    point, _, _ = points(s)
    velocity = torch.sin(point.x_t)
    candidate = point.x_t + velocity * (later - doubles(*s)).view(-1, 1, 1, 1)
    target = predicted_target(point.x_t, velocity, s=doubles(*s), candidate=candidate, s_next=later)
    torch.testing.assert_close(target, velocity)


def test_with_the_true_velocity_a_noised_candidate_has_its_own_known_target():
    """A candidate at s' made of the same data and other noise: from the true v the predicted target is the known one."""
    s, later = (0.9, 0.5, 0.3), doubles(0.8, 0.2, 0.05)
    point, x_0, _ = points(s)
    noise = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    candidate = FlowPath().sample(x_0, noise=noise, t=later)
    target = predicted_target(point.x_t, point.target, s=doubles(*s), candidate=candidate.x_t, s_next=later)
    torch.testing.assert_close(target, candidate.target)
    assert per_sample_error(target, target=candidate.target).max() < 1e-12


@pytest.mark.parametrize(("later", "message"), [(0.5, "whose distance is 0"), (0.7, "later step"), (0.0, "clean latent")])
def test_a_target_implied_by_the_models_own_prediction_or_by_a_clean_latent_is_refused(later, message):
    point, _, _ = points((0.5, 0.5, 0.5))
    times = doubles(later, later, later)
    with pytest.raises(ConfigError, match=message):
        predicted_target(point.x_t, point.target, s=doubles(0.5, 0.5, 0.5), candidate=point.x_t, s_next=times)
