"""Diffusion-SDPO's loser gradient: the value is untouched and the winner is not harmed, to first order."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from infra.config import ConfigError
from pipelines.algorithms.diffusion.path import per_sample_error
from pipelines.algorithms.preference.flow_dpo import FlowDPO
from pipelines.algorithms.preference.loser_gradient import SafeScale, Unscaled
from pipelines.algorithms.preference.pairwise import Member, PairBatch
from support.pair_batches import CLIPS, from_noise, loss, means_of


def batch_of(winner_residual, loser_residual):
    """Pairs of those residuals (prediction - target), policy at its reference."""
    members = []
    for residual in (winner_residual, loser_residual):
        prediction = torch.tensor(residual, requires_grad=True)
        target = torch.zeros_like(prediction)
        error = per_sample_error(prediction, target=target)
        members.append(Member(prediction, target, error, prediction.detach(), error.detach()))
    flat = torch.zeros(len(winner_residual))
    return PairBatch(*members, flat, flat, flat + 1, flat > 0, flat, flat)


def scales(rule, batch):
    return rule.scales(batch, means={name: v.mean().item() for name, v in rule.statistics(batch).items()})


def test_the_scale_is_that_of_the_formula():
    batch = batch_of([[1.0, 0.0], [1.0, 1.0]], [[4.0, 3.0], [0.5, 0.5]])
    assert scales(SafeScale(mu=0.0), batch).tolist() == [0.25, 1.0]  # 1 / 4, and 2 / 1 clamped
    assert scales(SafeScale(mu=0.5), batch).tolist() == [0.125, 1.0]


def test_one_scale_of_the_batch_is_made_from_its_means():
    batch = batch_of([[1.0, 0.0], [1.0, 1.0]], [[4.0, 3.0], [0.5, 0.5]])
    assert scales(SafeScale(mu=0.0, per="batch"), batch).tolist() == pytest.approx([3 / 5] * 2)  # (1 + 2) / (4 + 1)


def test_orthogonal_and_opposed_gradients_are_left_alone():
    batch = batch_of([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]], [[0.0, 9.0], [-5.0, 1.0], [1.0, 1.0]])
    for mu in (0.0, 0.5, 1.0):
        assert scales(SafeScale(mu=mu), batch).tolist() == [1.0] * 3


def test_where_every_scale_is_one_this_is_dpo():
    kinds = (Unscaled(), SafeScale(mu=0.5), SafeScale(mu=0.5, per="batch"))
    found = []
    for kind in kinds:
        batch = batch_of([[1.0, 0.0]], [[-5.0, 1.0]])
        value = loss(FlowDPO(beta=3.0, loser_gradient=kind), batch)
        value.sum().backward()
        found.append((value, batch.winner.prediction.grad, batch.loser.prediction.grad))
    for other in found[1:]:
        assert all(torch.equal(one, two) for one, two in zip(found[0], other, strict=True))


@pytest.mark.parametrize("per", ["pair", "batch"])
def test_the_value_is_dpo_s_and_only_the_loser_s_gradient_is_scaled(per):
    rule = SafeScale(mu=0.99, per=per)
    plain, safe = from_noise(2, shape=CLIPS), from_noise(2, shape=CLIPS)
    values = loss(FlowDPO(beta=20.0), plain), loss(FlowDPO(beta=20.0, loser_gradient=rule), safe)
    for value in values:
        value.sum().backward()
    assert torch.equal(*values)
    assert torch.equal(plain.winner.prediction.grad, safe.winner.prediction.grad)
    factor = scales(rule, safe).view(-1, 1, 1, 1, 1)
    torch.testing.assert_close(safe.loser.prediction.grad, factor * plain.loser.prediction.grad)
    assert (factor < 1).any()


@given(seed=st.integers(0, 300), mu=st.floats(0, 1))
def test_a_step_along_the_scaled_gradient_does_not_raise_the_winner_s_error(seed, mu):
    """In a model of one shared output: both members move together, where the loser's push harms the most."""
    batch = from_noise(seed, shape=(2, 2, 2))
    rule = SafeScale(mu=mu)
    g_w, g_l = (2 * (member.prediction - member.target).detach().flatten(1) for member in (batch.winner, batch.loser))
    step = -(g_w - rule.scales(batch, means={}).unsqueeze(1) * g_l)
    assert ((step * g_w).sum(1) <= 1e-4).all()


def test_a_batch_in_two_passes_has_the_scale_of_the_whole():
    rule = SafeScale(mu=0.1, per="batch")
    batch = from_noise(pairs=4)
    method = FlowDPO(loser_gradient=rule)
    whole = rule.scales(batch, means=means_of(method, batch))
    halves = []
    for part in (slice(0, 2), slice(2, 4)):
        members = [
            Member(m.prediction[part], m.target[part], m.error[part], None, None) for m in (batch.winner, batch.loser)
        ]
        rest = [getattr(batch, n)[part] for n in ("t", "gap", "probability", "tie", "reward_winner", "reward_loser")]
        halves.append(rule.statistics(PairBatch(*members, *rest)))
    means = {name: torch.cat([half[name] for half in halves]).double().mean().item() for name in halves[0]}
    assert torch.equal(whole, rule.scales(batch, means=means))


def test_only_a_scale_of_the_batch_needs_a_pass_before():
    assert not FlowDPO(loser_gradient=SafeScale()).needs_statistics
    assert FlowDPO(loser_gradient=SafeScale(per="batch")).needs_statistics


@pytest.mark.parametrize("mu", [-0.1, 1.1])
def test_a_reserve_outside_its_range_is_refused(mu):
    with pytest.raises(ConfigError, match="SafeScale"):
        SafeScale(mu=mu)
