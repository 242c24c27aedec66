"""Bradley-Terry with and without ties is a probability model, symmetric, and finite at extremes."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from infra.config import ConfigError
from pipelines.algorithms.reward.bradley_terry import (
    A_WINS,
    B_WINS,
    TIE,
    BradleyTerry,
    BradleyTerryTies,
    known,
)

difference = st.floats(-20, 20, width=32)
theta = st.floats(1.01, 50)


def probabilities(model, difference):
    outcomes = torch.tensor([A_WINS, TIE, B_WINS])
    return torch.exp(-model.losses(torch.full((3,), difference), outcome=outcomes))


@given(difference=difference, theta=theta)
def test_the_probabilities_of_the_three_outcomes_sum_to_one(difference, theta):
    total = probabilities(BradleyTerryTies(theta=theta), difference).sum().item()
    assert total == pytest.approx(1, abs=2e-5)


@given(difference=difference, theta=theta)
def test_exchanging_the_pictures_exchanges_the_outcomes(difference, theta):
    there = probabilities(BradleyTerryTies(theta=theta), difference)
    back = probabilities(BradleyTerryTies(theta=theta), -difference)
    torch.testing.assert_close(there, back.flip(0))


@given(theta=theta)
def test_equals_tie_with_the_probability_theta_says(theta):
    tie = probabilities(BradleyTerryTies(theta=theta), 0.0)[1].item()
    assert tie == pytest.approx((theta - 1) / (theta + 1), rel=1e-4, abs=1e-5)


@given(difference=difference)
def test_the_published_form_of_a_win_is_met(difference):
    won = probabilities(BradleyTerryTies(theta=5.0), difference)[0].item()
    assert won == pytest.approx(math.exp(difference) / (math.exp(difference) + 5), rel=1e-4)


@given(difference=difference)
def test_wins_and_losses_of_plain_bradley_terry_sum_to_one(difference):
    both = torch.exp(-BradleyTerry().losses(torch.full((2,), difference), outcome=torch.tensor([A_WINS, B_WINS])))
    assert both.sum().item() == pytest.approx(1, abs=1e-5)


def test_equal_rewards_give_even_odds():
    assert BradleyTerry().losses(torch.zeros(1), outcome=torch.tensor([A_WINS])).item() == pytest.approx(math.log(2))


def test_a_tie_pulls_the_difference_to_zero_in_both_models():
    for model in (BradleyTerry(), BradleyTerryTies()):
        lead = torch.tensor([2.0, -2.0, 0.0], requires_grad=True)
        model.losses(lead, outcome=torch.tensor([TIE] * 3)).sum().backward()
        assert lead.grad[0] > 0 > lead.grad[1]
        assert lead.grad[2].item() == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("model", [BradleyTerry(), BradleyTerryTies()])
def test_losses_and_gradients_stay_finite_at_extremes(model):
    lead = torch.tensor([-1e30, -1e4, 0.0, 1e4, 1e30], requires_grad=True)
    for outcome in (A_WINS, TIE, B_WINS):
        losses = model.losses(lead, outcome=torch.full((5,), outcome))
        (gradient,) = torch.autograd.grad(losses.sum(), lead)
        assert torch.isfinite(losses).all() and torch.isfinite(gradient).all()


def test_a_theta_that_knows_no_ties_is_refused():
    with pytest.raises(ConfigError, match="theta"):
        BradleyTerryTies(theta=1.0)


@pytest.mark.parametrize("model", [BradleyTerry(), BradleyTerryTies()])
def test_an_unknown_outcome_is_not_trained_on_as_a_tie(model):
    lead = torch.tensor([1.0, 1.0], requires_grad=True)
    outcome = torch.tensor([A_WINS, 3])
    losses = model.losses(lead, outcome=outcome)
    assert losses.isnan().tolist() == [False, True]
    losses[known(outcome)].mean().backward()
    assert torch.isfinite(lead.grad).all() and lead.grad[1] == 0
