"""Laws and closed forms of Flow-DPO (Liu et al., 2025, eq. 6)."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from infra.config import ConfigError
from pipelines.algorithms.preference.flow_dpo import FlowDPO
from support.pair_batches import CLIPS, PICTURES, from_errors, from_noise, loss, with_sums

error = st.floats(0, 10, width=32)


@given(winner=error, loser=error, t=st.floats(0, 1, width=32))
def test_a_policy_that_is_its_reference_pays_the_logarithm_of_two(winner, loser, t):
    same = from_errors([winner], [loser], [winner], [loser], t=[t])
    for weighting in ("constant", "(1-t)^2"):
        assert loss(FlowDPO(weighting=weighting), same).item() == pytest.approx(math.log(2))


@given(values=st.tuples(error, error, error, error), beta=st.floats(0.1, 20), t=st.floats(0, 1))
def test_the_loss_is_minus_the_log_sigmoid_of_equation_six(values, beta, t):
    winner, loser, reference_winner, reference_loser = values
    batch = from_errors(*([value] for value in values), t=[t])
    for weighting, factor in (("constant", 1), ("(1-t)^2", (1 - t) ** 2)):
        margin = -0.5 * beta * factor * ((winner - reference_winner) - (loser - reference_loser))
        expected = math.log1p(math.exp(-margin)) if margin > -500 else -margin
        assert loss(FlowDPO(beta=beta, weighting=weighting), batch).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_the_gradient_pulls_the_winner_and_pushes_the_loser_by_half_beta_times_the_doubt():
    winner, loser = (torch.tensor([value], dtype=torch.float64, requires_grad=True) for value in (0.4, 0.7))
    loss(FlowDPO(beta=4.0), from_errors(winner, loser, [0.5], [0.6])).sum().backward()
    doubt = 1 / (1 + math.exp(2 * 0.2))  # 1 - sigma(logit), logit = 4 / 2 * (0.1 + 0.1)
    assert winner.grad.item() == pytest.approx(2 * doubt)
    assert loser.grad.item() == pytest.approx(-2 * doubt)


def test_the_derived_weight_is_full_at_the_data_and_gone_at_the_noise():
    derived = FlowDPO(beta=8.0, weighting="(1-t)^2")
    assert derived.beta_at(torch.tensor([0.0, 0.5, 1.0])).tolist() == [8.0, 2.0, 0.0]
    assert FlowDPO(beta=8.0).beta_at(torch.tensor([0.0, 0.5, 1.0])).tolist() == [8.0] * 3


@given(seed=st.integers(0, 1000), side=st.integers(1, 6), clip=st.booleans())
def test_sums_with_beta_divided_by_the_number_of_elements_give_the_same_loss(seed, side, clip):
    shape = (2, 3, side, side) if clip else (2, side, side)
    batch = from_noise(seed, shape=shape)
    elements = math.prod(shape)
    sums = loss(FlowDPO(beta=50.0 / elements), with_sums(batch))
    torch.testing.assert_close(loss(FlowDPO(beta=50.0), batch), sums, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("winner", [0.0, 1e6, 1e30])
@pytest.mark.parametrize("loser", [0.0, 1e6, 1e30])
def test_loss_and_gradient_stay_finite_at_extremes(winner, loser):
    values = [torch.tensor([value], dtype=torch.float64, requires_grad=True) for value in (winner, loser)]
    losses = loss(FlowDPO(beta=5000.0), from_errors(*values, [1.0], [1.0], t=[0.999]))
    losses.sum().backward()
    assert torch.isfinite(losses).all()
    assert all(torch.isfinite(value.grad).all() for value in values)


@pytest.mark.parametrize("shape", [PICTURES, CLIPS])
def test_the_loss_is_the_one_of_the_paper_s_pseudo_code_on_a_single_pair(shape):
    batch = from_noise(5, pairs=1, shape=shape)
    winner, loser = batch.winner, batch.loser
    terms = [
        (each - member.target).norm().pow(2) for member in (winner, loser) for each in (member.prediction, member.reference)
    ]
    beta = 500.0 / winner.prediction.numel()  # the pseudo-code sums
    expected = -torch.log(torch.sigmoid(-0.5 * beta * ((terms[0] - terms[1]) - (terms[2] - terms[3]))))
    torch.testing.assert_close(loss(FlowDPO(), batch)[0], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("options", [{"beta": 0.0}, {"beta": -1.0}, {"weighting": "linear"}, {"bta": 3.0}])
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(ConfigError, match="FlowDPO"):
        FlowDPO(**options)
