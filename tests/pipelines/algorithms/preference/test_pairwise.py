"""Laws of the algebra of pairs: what the implicit margin is blind to, what is reported, and which pairs are kept."""

import pytest
import torch

from pipelines.algorithms.preference.pairwise import figures, preference_logit
from support.pair_batches import from_errors, from_noise


def lead(batch, *, beta=2.0):
    return preference_logit(batch.winner, loser=batch.loser, beta=beta)


def test_the_margin_of_a_policy_that_is_its_reference_is_zero():
    assert lead(from_errors([0.3, 2.0], [0.7, 1.0], [0.3, 2.0], [0.7, 1.0]), beta=500.0).tolist() == [0.0, 0.0]


def test_the_margin_changes_sign_when_winner_and_loser_are_exchanged():
    batch = from_noise()
    assert torch.equal(lead(batch), -lead(batch.exchanged))


def test_exchanging_twice_changes_nothing():
    batch = from_noise(reward_winner=[1.0, 2.0, 3.0])
    twice = batch.exchanged.exchanged
    assert twice.winner is batch.winner and twice.loser is batch.loser
    assert twice.reward_winner is batch.reward_winner
    assert batch.exchanged.reward_loser is batch.reward_winner


def test_the_margin_is_half_of_beta_times_the_relative_improvement():
    batch = from_errors([0.2], [0.9], [0.3], [0.6])
    assert lead(batch, beta=10.0).item() == pytest.approx(-5 * ((0.2 - 0.3) - (0.9 - 0.6)))


def test_the_reference_carries_no_gradient():
    reference = torch.tensor([0.5], dtype=torch.float64, requires_grad=True)
    winner = torch.tensor([0.4], dtype=torch.float64, requires_grad=True)
    lead(from_errors(winner, [0.6], reference, reference), beta=3.0).sum().backward()
    assert reference.grad is None
    assert winner.grad.tolist() == [-1.5]


def test_the_implicit_accuracy_counts_equals_as_halves():
    batch = from_errors([0.1, 0.5, 0.9], [0.5] * 3, [0.5] * 3, [0.5] * 3)
    assert figures(batch)["implicit_accuracy"].tolist() == [1.0, 0.5, 0.0]


def test_a_tie_is_neither_right_nor_wrong():
    batch = from_errors([0.1, 0.9], [0.5] * 2, [0.5] * 2, [0.5] * 2, tie=[True, True])
    assert figures(batch)["implicit_accuracy"].tolist() == [0.5, 0.5]


def test_without_a_reference_the_better_denoised_member_is_the_preferred_one():
    found = figures(from_errors([0.1, 0.9], [0.5, 0.5]))
    assert found["implicit_accuracy"].tolist() == [1.0, 0.0]
    assert "error_drift" not in found


def test_the_drift_is_positive_where_both_members_are_denoised_worse():
    found = figures(from_errors([0.6], [1.0], [0.5], [0.5]))
    assert found["error_drift"].item() == pytest.approx(0.3)
    assert found["winner_error"].item() == pytest.approx(0.6) and found["loser_error"].item() == pytest.approx(1.0)


def test_figures_carry_no_gradient():
    assert not any(values.requires_grad for values in figures(from_noise()).values())


def test_a_missing_reference_is_named():
    with pytest.raises(AssertionError, match=r"Method\.reference"):
        lead(from_errors([0.2], [0.9]))
