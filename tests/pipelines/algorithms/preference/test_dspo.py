"""DSPO: the formula, its limits, and where it points."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from infra.config import ConfigError
from pipelines.algorithms.preference.confidence import SoftLabels, WeightedLabels
from pipelines.algorithms.preference.dspo import DSPO
from pipelines.algorithms.preference.loser_gradient import SafeScale, Unscaled
from pipelines.algorithms.preference.margin import Margin
from pipelines.algorithms.preference.sft import SFT
from support.pair_batches import CLIPS, PICTURES, from_noise, loss, with_sums


def plain(batch, *, beta, logit_beta, margin=0.0):
    """The formula as it is written, in fp64 and on leaves of its own: losses and the gradients of both predictions."""
    leaves = [member.prediction.detach().double().requires_grad_() for member in (batch.winner, batch.loser)]
    targets, references = batch.winner.target.double(), batch.winner.reference.double()
    losing = batch.loser.target.double(), batch.loser.reference.double()

    def mean(x):
        return x.square().mean(dim=tuple(range(1, x.dim())))

    winner = mean(leaves[0] - targets) - mean(references - targets)
    loser = mean(leaves[1] - losing[0]) - mean(losing[1] - losing[0])
    doubt = 1 - torch.sigmoid(-logit_beta / 2 * (winner - loser) - margin)
    doubt = doubt.view(-1, *[1] * (targets.dim() - 1))
    losses = mean((leaves[0] - targets) - beta * doubt * (leaves[0] - references))
    losses.sum().backward()
    return losses.detach(), leaves[0].grad, leaves[1].grad


@pytest.mark.parametrize("shape", [PICTURES, CLIPS])
@pytest.mark.parametrize("margin", [0.0, 1.3])
def test_value_and_gradient_are_those_of_the_formula(shape, margin):
    batch = from_noise(3, shape=shape)
    found = loss(DSPO(beta=0.6, logit_beta=9.0, margin=Margin(scale=1.0, gap=margin)), batch)
    found.sum().backward()
    values, winner, loser = plain(batch, beta=0.6, logit_beta=9.0, margin=margin)
    torch.testing.assert_close(found.detach().double(), values, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(batch.winner.prediction.grad.double(), winner, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(batch.loser.prediction.grad.double(), loser, rtol=1e-3, atol=1e-5)


def test_one_beta_serves_both_places_unless_told_otherwise():
    assert torch.equal(loss(DSPO(beta=0.5), from_noise()), loss(DSPO(beta=0.5, logit_beta=0.5), from_noise()))


def test_without_beta_this_is_sft_on_winners():
    torch.testing.assert_close(loss(DSPO(beta=0.0, logit_beta=5.0), from_noise()), loss(SFT(), from_noise()))


def test_a_policy_that_is_its_reference_pays_the_winner_s_error():
    batch = from_noise(drift=0.0)
    torch.testing.assert_close(loss(DSPO(beta=0.9, logit_beta=500.0), batch), batch.winner.error)


def test_a_policy_that_prefers_the_winner_for_certain_is_left_with_sft():
    batches = (from_noise(seed) for seed in range(100))
    sure = next(batch for batch in batches if (batch.winner.drift < batch.loser.drift).all())
    torch.testing.assert_close(loss(DSPO(beta=0.9, logit_beta=1e6), sure), loss(SFT(), sure))


@given(seed=st.integers(0, 200), beta=st.floats(0, 0.99), margin=st.floats(0, 10))
def test_the_winner_is_never_pushed_away_at_the_start(seed, beta, margin):
    batch = from_noise(seed, drift=0.0)
    loss(DSPO(beta=beta, logit_beta=100.0, margin=Margin(scale=1.0, gap=margin)), batch).sum().backward()
    towards = (batch.winner.target - batch.winner.prediction).detach()
    assert ((-batch.winner.prediction.grad * towards).flatten(1).sum(1) > 0).all()


@given(seed=st.integers(0, 200))
def test_sums_inside_with_its_beta_divided_by_the_number_of_elements_give_the_same_loss(seed):
    batch = from_noise(seed)
    elements = batch.winner.prediction[0].numel()
    sums = loss(DSPO(beta=0.5, logit_beta=20.0 / elements), with_sums(batch))
    torch.testing.assert_close(loss(DSPO(beta=0.5, logit_beta=20.0), batch), sums, rtol=1e-4, atol=1e-5)


def test_an_arena_margin_of_a_fixed_gap_is_a_fixed_margin():
    arena = DSPO(beta=0.5, logit_beta=9.0, margin=Margin(scale=0.5))
    fixed = DSPO(beta=0.5, logit_beta=9.0, margin=Margin(scale=1.0, gap=1.0))
    assert torch.equal(loss(arena, from_noise(gap=[2.0] * 3)), loss(fixed, from_noise()))


def test_soft_labels_mix_the_losses_of_both_orders():
    options = {"beta": 0.5, "logit_beta": 9.0}
    batch = from_noise(probability=[0.75] * 3)
    both = 0.75 * loss(DSPO(**options), batch) + 0.25 * loss(DSPO(**options), batch.exchanged)
    torch.testing.assert_close(loss(DSPO(**options, confidence=SoftLabels()), batch), both)
    certain = from_noise(probability=[1.0] * 3)
    assert torch.equal(loss(DSPO(**options, confidence=SoftLabels()), certain), loss(DSPO(**options), certain))


def test_a_weight_weighs_the_loss():
    batch = from_noise(probability=[0.75] * 3)
    weighted = loss(DSPO(confidence=WeightedLabels()), batch)
    torch.testing.assert_close(weighted, 0.5 * loss(DSPO(), batch))


def test_a_safe_scale_leaves_the_value_and_scales_the_loser_s_gradient():
    options = {"beta": 0.5, "logit_beta": 9.0}
    plain_batch, safe_batch = from_noise(2), from_noise(2)
    values = loss(DSPO(**options), plain_batch), loss(DSPO(**options, loser_gradient=SafeScale(mu=0.99)), safe_batch)
    for value in values:
        value.sum().backward()
    assert torch.equal(*values)
    assert torch.equal(plain_batch.winner.prediction.grad, safe_batch.winner.prediction.grad)
    factor = SafeScale(mu=0.99).scales(safe_batch, means={}).view(-1, 1, 1, 1)
    torch.testing.assert_close(safe_batch.loser.prediction.grad, factor * plain_batch.loser.prediction.grad)
    assert (factor < 1).any()


def test_it_needs_the_reference_s_predictions():
    assert DSPO().reference == "predictions"


@pytest.mark.parametrize("beta", [1.0, 5000.0, -0.1])
def test_a_beta_that_turns_the_gradient_round_is_refused(beta):
    with pytest.raises(ConfigError, match="DSPO: beta"):
        DSPO(beta=beta)


def test_one_beta_on_summed_errors_is_that_beta_times_the_number_of_elements_on_means():
    elements = from_noise().winner.prediction[0].numel()
    assert torch.equal(
        loss(DSPO(beta=0.5, logit_beta="sum"), from_noise()),
        loss(DSPO(beta=0.5, logit_beta=0.5 * elements), from_noise()),
    )


@pytest.mark.parametrize("margin", [0.0, 1.3])
@pytest.mark.parametrize("loser_gradient", [Unscaled(), SafeScale(mu=0.99)])
def test_the_share_of_preferences_is_that_of_the_gradient_beside_sft(margin, loser_gradient):
    method = DSPO(beta=0.6, logit_beta=9.0, margin=Margin(scale=1.0, gap=margin), loser_gradient=loser_gradient)
    batch, plain_batch = from_noise(3), from_noise(3)
    found = method.losses(batch, means={})
    found.losses.sum().backward()
    loss(SFT(), plain_batch).sum().backward()
    sft = plain_batch.winner.prediction.grad.flatten(1)
    rest = torch.cat([batch.winner.prediction.grad.flatten(1) - sft, batch.loser.prediction.grad.flatten(1)], dim=1)
    expected = rest.norm(dim=1) / (rest.norm(dim=1) + sft.norm(dim=1))
    torch.testing.assert_close(found.metrics["preference_share"], expected, rtol=1e-4, atol=1e-6)


def test_with_the_public_beta_next_to_nothing_of_the_gradient_depends_on_preferences():
    method = DSPO(beta=0.001, logit_beta=5000.0, margin=Margin(scale=0.1, gap=2.0))
    share = method.losses(from_noise(drift=0.01), means={}).metrics["preference_share"]
    assert (share < 0.02).all()
    assert (DSPO().losses(from_noise(drift=0.0), means={}).metrics["preference_share"] < 0.001).all()
