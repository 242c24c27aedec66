"""Laws of the algebra of pairs: what the implicit margin is blind to, what it reports, and which pairs are kept."""

import pytest
import torch

from infra.config import ConfigError
from pipelines.algorithms.preference.pairwise import PairErrors, decided, inside, pair_losses


def errors(*, winner, loser, reference_winner, reference_loser):
    columns = [torch.tensor(column) for column in (winner, loser, reference_winner, reference_loser)]
    return PairErrors(*columns, t=torch.full((len(winner),), 0.5))


def test_the_margin_of_a_policy_that_is_its_reference_is_zero():
    same = errors(winner=[0.3, 2.0], loser=[0.7, 1.0], reference_winner=[0.3, 2.0], reference_loser=[0.7, 1.0])
    assert inside(same, beta=500.0).tolist() == [0.0, 0.0]


def test_the_margin_changes_sign_when_winner_and_loser_are_exchanged():
    one = errors(winner=[0.2], loser=[0.9], reference_winner=[0.3], reference_loser=[0.6])
    other = errors(winner=[0.9], loser=[0.2], reference_winner=[0.6], reference_loser=[0.3])
    assert torch.equal(inside(one, beta=2.0), -inside(other, beta=2.0))


def test_the_margin_is_half_of_beta_times_the_relative_improvement():
    pair = errors(winner=[0.2], loser=[0.9], reference_winner=[0.3], reference_loser=[0.6])
    assert inside(pair, beta=10.0).item() == pytest.approx(-5 * ((0.2 - 0.3) - (0.9 - 0.6)))


def test_the_reference_carries_no_gradient():
    reference = torch.tensor([0.5], requires_grad=True)
    winner = torch.tensor([0.4], requires_grad=True)
    pair = PairErrors(winner, torch.tensor([0.6]), reference, reference, t=torch.tensor([0.5]))
    inside(pair, beta=3.0).sum().backward()
    assert reference.grad is None
    assert winner.grad.tolist() == [-1.5]


def test_the_implicit_accuracy_counts_equals_as_halves():
    pair = errors(winner=[0.1, 0.5, 0.9], loser=[0.5] * 3, reference_winner=[0.5] * 3, reference_loser=[0.5] * 3)
    losses = pair_losses(torch.zeros(3), errors=pair, margin=inside(pair, beta=1.0))
    assert losses.correct.tolist() == [1.0, 0.5, 0.0]
    assert losses.means()["implicit_accuracy"] == 0.5


def test_the_drift_is_positive_where_both_members_are_denoised_worse():
    pair = errors(winner=[0.6], loser=[1.0], reference_winner=[0.5], reference_loser=[0.5])
    means = pair_losses(torch.zeros(1), errors=pair, margin=inside(pair, beta=1.0)).means()
    assert means["drift"] == pytest.approx(0.3)
    assert means["winner_error"] == pytest.approx(0.6) and means["loser_error"] == pytest.approx(1.0)


def test_ties_are_dropped_and_the_others_keep_their_place():
    kept = decided(["a", "tie", "b", "tie", "a"])
    assert kept.index.tolist() == [0, 2, 4]
    assert kept.winner_is_a.tolist() == [True, False, True]


def test_no_pairs_leave_no_pairs():
    assert decided([]).index.tolist() == []
    assert decided(["tie"]).winner_is_a.tolist() == []


def test_an_unreadable_label_is_refused():
    with pytest.raises(ConfigError, match="unparsable"):
        decided(["a", "unparsable"])
