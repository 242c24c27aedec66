"""What the options of the DPO forms do together: limits, symmetries and gradients."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipelines.algorithms.preference.confidence import HardLabels, SoftLabels, WeightedLabels
from pipelines.algorithms.preference.diffusion_dpo import DiffusionDPO
from pipelines.algorithms.preference.flow_dpo import FlowDPO
from pipelines.algorithms.preference.loser_gradient import SafeScale, Unscaled
from pipelines.algorithms.preference.margin import Margin
from pipelines.algorithms.preference.polynomial import AutoAlpha, FixedAlpha
from pipelines.algorithms.rating.gap import posterior_gap
from support.pair_batches import from_errors, from_noise, loss, means_of

FORMS = [FlowDPO, DiffusionDPO]
MARGINS = [Margin(), Margin(scale=1.0, gap=0.7), Margin(scale=0.5)]
POLYNOMIALS = [FixedAlpha(), FixedAlpha(alpha=8), FixedAlpha(alpha=-1), AutoAlpha()]
CONFIDENCES = [HardLabels(), SoftLabels(), WeightedLabels()]
KNOWN = {"gap": [0.5, 2.0, 0.1], "probability": [0.9, 0.6, 0.75]}


def gradients(method, seed=0, **columns):
    batch = from_noise(seed, **columns)
    loss(method, batch).sum().backward()
    return batch.winner.prediction.grad, batch.loser.prediction.grad


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "options",
    [
        {"polynomial": FixedAlpha(alpha=0)},
        {"margin": Margin(scale=1.0, gap=0)},
        {"margin": Margin(scale=0)},
        {"loser_gradient": Unscaled()},
        {"confidence": HardLabels()},
    ],
)
def test_without_its_term_every_variant_is_dpo_in_value_and_gradient(form, options):
    plain, variant = form(beta=20.0), form(beta=20.0, **options)
    assert torch.equal(loss(plain, from_noise(**KNOWN)), loss(variant, from_noise(**KNOWN)))
    for one, other in zip(gradients(plain, **KNOWN), gradients(variant, **KNOWN), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("confidence", [SoftLabels(), WeightedLabels(), WeightedLabels(by="probability")])
def test_a_jury_of_one_mind_gives_hard_labels(confidence):
    plain, variant = FlowDPO(beta=20.0), FlowDPO(beta=20.0, confidence=confidence)
    assert torch.equal(loss(plain, from_noise()), loss(variant, from_noise()))
    for one, other in zip(gradients(plain), gradients(variant), strict=True):
        assert torch.equal(one, other)


def test_an_arena_of_equal_generators_without_noise_is_dpo():
    gap = posterior_gap(25.0, sigma_winner=0.0, mu_loser=25.0, sigma_loser=0.0)
    arena = FlowDPO(beta=20.0, margin=Margin(scale=3.0))
    assert torch.equal(loss(arena, from_noise(gap=[gap] * 3)), loss(FlowDPO(beta=20.0), from_noise()))


def test_an_arena_without_noise_asks_for_the_lead_of_the_means():
    gap = posterior_gap(28.0, sigma_winner=0.0, mu_loser=25.0, sigma_loser=0.0)
    arena = FlowDPO(beta=20.0, margin=Margin(scale=0.5))
    fixed = FlowDPO(beta=20.0, margin=Margin(scale=1.0, gap=1.5))
    assert torch.equal(loss(arena, from_noise(gap=[gap] * 3)), loss(fixed, from_noise()))


def test_a_margin_moves_the_point_of_indifference():
    batch = from_errors([0.4], [0.6], [0.5], [0.5])  # logit = 5 * 0.2 = 1
    assert loss(FlowDPO(beta=10.0, margin=Margin(scale=1.0, gap=1.0)), batch).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize(("margin", "polynomial", "confidence"), list(itertools.product(MARGINS, POLYNOMIALS, CONFIDENCES)))
def test_the_gradient_of_every_combination_is_the_slope_of_its_value(margin, polynomial, confidence):
    method = FlowDPO(beta=3.0, margin=margin, polynomial=polynomial, confidence=confidence)
    winner, loser = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in ([0.2, 0.9, 0.5], [0.8, 0.1, 0.6]))

    def of(first, second, *, means=None):
        batch = from_errors(first, second, [0.5] * 3, [0.4] * 3, **KNOWN)
        return method.losses(batch, means=means_of(method, batch) if means is None else means).losses

    with torch.no_grad():
        means = means_of(method, from_errors(winner, loser, [0.5] * 3, [0.4] * 3, **KNOWN))
    assert torch.autograd.gradcheck(lambda *errors: of(*errors, means=means), (winner, loser))


@pytest.mark.parametrize(("margin", "polynomial"), list(itertools.product(MARGINS, POLYNOMIALS)))
def test_a_divided_jury_cannot_tell_winner_from_loser(margin, polynomial):
    method = FlowDPO(beta=20.0, margin=margin, polynomial=polynomial, confidence=SoftLabels())
    divided = from_noise(gap=[0.5, 2.0, 0.1], probability=[0.5, 0.3, 0.0])
    means = means_of(method, divided)
    torch.testing.assert_close(
        method.losses(divided, means=means).losses, method.losses(divided.exchanged, means=means).losses
    )


@given(probability=st.floats(0.51, 0.99))
def test_a_soft_label_is_content_where_the_policy_is_as_sure_as_the_jury(probability):
    logit = math.log(probability / (1 - probability))
    winner = torch.tensor([1.0 - logit], dtype=torch.float64, requires_grad=True)
    batch = from_errors(winner + 10, [1.0], [11.0], [1.0], probability=[probability])
    loss(FlowDPO(beta=2.0, confidence=SoftLabels()), batch).sum().backward()
    assert winner.grad.item() == pytest.approx(0.0, abs=1e-12)


@given(alpha=st.floats(-1, 20), value=st.floats(0, 5))
def test_no_accepted_setting_pulls_the_loser_or_pushes_the_winner(alpha, value):
    leads = torch.linspace(-20, 20, 101, dtype=torch.float64)
    winner, loser = (torch.full_like(leads, 30.0, requires_grad=True) for _ in range(2))
    batch = from_errors(winner, loser, 30 + leads, torch.full_like(leads, 30.0))  # logit = leads at beta 2
    options = {"polynomial": FixedAlpha(alpha=alpha), "margin": Margin(scale=1.0, gap=value)}
    for confidence in (HardLabels(), WeightedLabels()):
        for gradient in torch.autograd.grad(loss(FlowDPO(beta=2.0, confidence=confidence, **options), batch).sum(), winner):
            assert (gradient >= 0).all()
        for gradient in torch.autograd.grad(loss(FlowDPO(beta=2.0, confidence=confidence, **options), batch).sum(), loser):
            assert (gradient <= 0).all()


@pytest.mark.parametrize("polynomial", POLYNOMIALS)
def test_a_policy_that_is_its_reference_has_a_known_loss(polynomial):
    batch = from_noise(drift=0.0)
    alpha = polynomial.alpha if isinstance(polynomial, FixedAlpha) else 0.0
    expected = torch.full((3,), math.log(2) + alpha / 2)
    torch.testing.assert_close(loss(FlowDPO(polynomial=polynomial), batch), expected)


def test_every_pair_has_its_own_loss():
    method = FlowDPO(beta=20.0, polynomial=FixedAlpha(alpha=4), loser_gradient=SafeScale())
    together = loss(method, from_noise(pairs=3))
    batch = from_noise(pairs=3)
    for place in range(3):
        alone = from_errors(
            *(member.detach()[place : place + 1].double() for member in (batch.winner.error, batch.loser.error)),
            batch.winner.reference_error[place : place + 1],
            batch.loser.reference_error[place : place + 1],
        )
        assert together[place].item() == pytest.approx(loss(method, alone).item(), rel=1e-5)


def test_what_was_decided_for_a_pair_is_reported():
    method = FlowDPO(beta=20.0, polynomial=FixedAlpha(alpha=4), loser_gradient=SafeScale())
    metrics = method.losses(from_noise(), means={}).metrics
    assert metrics["alpha"].tolist() == [4.0] * 3
    assert metrics["loser_scale"].shape == metrics["preference_logit"].shape == (3,)
    assert not any(values.requires_grad for values in metrics.values())
