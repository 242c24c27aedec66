"""Laws and closed forms of Flow-DPO (Liu et al., 2025, eq. 6)."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from infra.config import ConfigError
from pipelines.algorithms.diffusion.flow import path_sample, per_sample_error
from pipelines.algorithms.preference.flow_dpo import FlowDPO
from pipelines.algorithms.preference.pairwise import PairErrors

error = st.floats(0, 10, width=32)


def pair(winner, loser, reference_winner, reference_loser, *, t=0.5):
    return PairErrors(*(torch.tensor([value]) for value in (winner, loser, reference_winner, reference_loser, t)))


def loss(errors, *, margin=0.0, **options):
    return FlowDPO(**options).losses(errors, margin=torch.full_like(errors.t, margin)).losses


@given(winner=error, loser=error, t=st.floats(0, 1, width=32))
def test_a_policy_that_is_its_reference_pays_the_logarithm_of_two(winner, loser, t):
    same = pair(winner, loser, winner, loser, t=t)
    for weighting in ("constant", "(1-t)^2"):
        assert loss(same, weighting=weighting).item() == pytest.approx(math.log(2))


@given(values=st.tuples(error, error, error, error), beta=st.floats(0.1, 20))
def test_the_loss_is_minus_the_log_sigmoid_of_equation_six(values, beta):
    winner, loser, reference_winner, reference_loser = values
    margin = -0.5 * beta * ((winner - reference_winner) - (loser - reference_loser))
    expected = math.log1p(math.exp(-margin)) if margin > -500 else -margin
    assert loss(pair(*values), beta=beta).item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_the_gradient_pulls_the_winner_and_pushes_the_loser_by_half_beta_times_the_doubt():
    winner, loser = torch.tensor([0.4], requires_grad=True), torch.tensor([0.7], requires_grad=True)
    errors = PairErrors(winner, loser, torch.tensor([0.5]), torch.tensor([0.6]), t=torch.tensor([0.3]))
    loss(errors, beta=4.0).sum().backward()
    doubt = 1 / (1 + math.exp(2 * 0.2))  # 1 - sigma(inside), inside = 4 / 2 * (0.1 + 0.1)
    assert winner.grad.item() == pytest.approx(2 * doubt)
    assert loser.grad.item() == pytest.approx(-2 * doubt)


def test_the_derived_weight_is_full_at_the_data_and_gone_at_the_noise():
    derived = FlowDPO(beta=8.0, weighting="(1-t)^2")
    assert derived.beta_at(torch.tensor([0.0, 0.5, 1.0])).tolist() == [8.0, 2.0, 0.0]
    assert FlowDPO(beta=8.0).beta_at(torch.tensor([0.0, 0.5, 1.0])).tolist() == [8.0] * 3


def test_a_margin_moves_the_point_of_indifference():
    errors = pair(0.4, 0.6, 0.5, 0.5)  # inside = 5 * 0.2 = 1
    assert loss(errors, beta=10.0, margin=1.0).item() == pytest.approx(math.log(2))
    assert loss(errors, beta=10.0, margin=3.0) > loss(errors, beta=10.0)


def test_every_pair_has_its_own_loss():
    both = PairErrors(*(torch.tensor(v) for v in ([0.1, 0.9], [0.5, 0.5], [0.5, 0.5], [0.5, 0.5], [0.2, 0.8])))
    first, second = loss(both, beta=3.0)
    assert first.item() == pytest.approx(loss(pair(0.1, 0.5, 0.5, 0.5), beta=3.0).item())
    assert second.item() == pytest.approx(loss(pair(0.9, 0.5, 0.5, 0.5), beta=3.0).item())


@given(seed=st.integers(0, 1000), side=st.integers(1, 6))
def test_sums_with_beta_divided_by_the_number_of_elements_give_the_same_loss(seed, side):
    generator = torch.Generator().manual_seed(seed)
    shape = (3, 2, side, side)
    elements = shape[1] * side * side
    noise, *predictions = (torch.randn(shape, generator=generator) for _ in range(5))
    t = torch.rand(3, generator=generator)
    winner = path_sample(torch.randn(shape, generator=generator), noise=noise, t=t).velocity
    loser = path_sample(torch.randn(shape, generator=generator), noise=noise, t=t).velocity
    targets = (winner, loser, winner, loser)
    means = [per_sample_error(p, target=v) for p, v in zip(predictions, targets, strict=True)]
    sums = [(p - v).square().flatten(1).sum(1) for p, v in zip(predictions, targets, strict=True)]
    by_means = loss(PairErrors(*means, t=t), beta=50.0)
    by_sums = loss(PairErrors(*sums, t=t), beta=50.0 / elements)
    torch.testing.assert_close(by_means, by_sums, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("winner", [0.0, 1e6, 1e30])
@pytest.mark.parametrize("loser", [0.0, 1e6, 1e30])
def test_loss_and_gradient_stay_finite_at_extremes(winner, loser):
    values = [torch.tensor([value], requires_grad=True) for value in (winner, loser)]
    errors = PairErrors(*values, torch.tensor([1.0]), torch.tensor([1.0]), t=torch.tensor([0.999]))
    losses = loss(errors, beta=5000.0)
    losses.sum().backward()
    assert torch.isfinite(losses).all()
    assert all(torch.isfinite(value.grad).all() for value in values)


def test_statistics_carry_no_gradient():
    winner = torch.tensor([0.4], requires_grad=True)
    errors = PairErrors(winner, *(torch.tensor([value]) for value in (0.5, 0.5, 0.5, 0.5)))
    result = FlowDPO().losses(errors, margin=torch.zeros(1))
    assert result.losses.requires_grad
    statistics = (result.inside, result.winner_error, result.loser_error, result.drift)
    assert not any(value.requires_grad for value in statistics)


@pytest.mark.parametrize("options", [{"beta": 0.0}, {"beta": -1.0}, {"weighting": "linear"}, {"bta": 3.0}])
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(ConfigError, match="FlowDPO"):
        FlowDPO(**options)
