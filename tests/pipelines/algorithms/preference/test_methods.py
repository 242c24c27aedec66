"""Laws of every preference loss."""

import pytest
import torch
from pydantic import TypeAdapter

from infra.config import ConfigError
from pipelines.algorithms.preference.diffusion_dpo import DiffusionDPO
from pipelines.algorithms.preference.dspo import DSPO
from pipelines.algorithms.preference.flow_dpo import FlowDPO
from pipelines.algorithms.preference.kto import KTO
from pipelines.algorithms.preference.loser_gradient import SafeScale
from pipelines.algorithms.preference.mapo import MaPO
from pipelines.algorithms.preference.methods import AnyMethod
from pipelines.algorithms.preference.pairwise import Member, PairBatch
from pipelines.algorithms.preference.polynomial import AutoAlpha, FixedAlpha
from pipelines.algorithms.preference.rwr import RWR
from pipelines.algorithms.preference.sft import SFT
from support.pair_batches import CLIPS, from_noise, loss, means_of

METHODS = [
    FlowDPO(beta=20.0),
    FlowDPO(beta=20.0, weighting="(1-t)^2", polynomial=FixedAlpha(alpha=8)),
    DiffusionDPO(beta=20.0, polynomial=AutoAlpha(), loser_gradient=SafeScale(per="batch")),
    MaPO(),
    DSPO(beta=0.5, logit_beta=20.0),
    KTO(beta=20.0),
    SFT(),
    RWR(),
]
COLUMNS = ("t", "gap", "probability", "tie", "reward_winner", "reward_loser")
of_every_method = pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)


def part(batch, where, *, shape=None, reference="predictions"):
    """Some pairs, in another shape of the same elements, with less of the reference."""
    members = []
    for member in (batch.winner, batch.loser):
        tensors = [tensor[where] for tensor in (member.prediction, member.target, member.reference)]
        if shape:
            tensors = [tensor.reshape(len(tensor), *shape) for tensor in tensors]
        kept = tensors[2] if reference == "predictions" else None
        known = None if reference == "none" else member.reference_error[where]
        members.append(Member(tensors[0], tensors[1], member.error[where], kept, known))
    return PairBatch(*members, *(getattr(batch, name)[where] for name in COLUMNS))


@of_every_method
def test_swapping_members_that_are_identical_changes_nothing(method):
    batch = from_noise(reward_winner=[1.0, 0.5, -1.0], reward_loser=[1.0, 0.5, -1.0])
    same = PairBatch(batch.winner, batch.winner, *(getattr(batch, name) for name in COLUMNS))
    assert torch.equal(loss(method, same), loss(method, same.exchanged))


@of_every_method
def test_a_batch_in_passes_has_the_losses_of_the_whole(method):
    """Given the whole batch's means, no loss depends on who else is in the pass: nothing is averaged first."""
    batch = from_noise(pairs=4)
    means = means_of(method, batch)
    whole = method.losses(batch, means=means).losses
    passes = [method.losses(part(batch, where), means=means).losses for where in (slice(0, 1), slice(1, 4))]
    torch.testing.assert_close(whole, torch.cat(passes), rtol=1e-6, atol=1e-6)


@of_every_method
def test_a_clip_is_a_picture_with_more_axes(method):
    batch = from_noise(shape=(2, 3, 4))
    clip = part(batch, slice(None), shape=(2, 3, 2, 2))
    torch.testing.assert_close(loss(method, batch), loss(method, clip), rtol=1e-5, atol=1e-6)


@of_every_method
def test_every_method_takes_clips_and_descends(method):
    batch = from_noise(shape=CLIPS)
    value = loss(method, batch)
    value.sum().backward()
    assert value.shape == (3,) and torch.isfinite(value).all()
    assert torch.isfinite(batch.winner.prediction.grad).all() and batch.winner.prediction.grad.abs().sum() > 0


@of_every_method
def test_what_a_method_says_it_needs_of_the_reference_is_enough(method):
    batch = from_noise()
    less = part(batch, slice(None), reference=method.reference)
    assert torch.equal(loss(method, less), loss(method, batch))


@of_every_method
def test_every_method_reports_the_same_figures_without_gradient(method):
    batch = from_noise()
    found = method.losses(batch, means=means_of(method, batch))
    assert {"implicit_accuracy", "winner_error", "loser_error", "error_drift"} <= set(found.metrics)
    assert found.losses.requires_grad
    assert all(values.shape == (3,) and not values.requires_grad for values in found.metrics.values())


@of_every_method
def test_statistics_are_announced_and_carry_no_gradient(method):
    found = method.statistics(from_noise())
    assert bool(found) == method.needs_statistics
    assert not any(values.requires_grad for values in found.values())


@of_every_method
def test_a_method_survives_being_written_down(method):
    assert TypeAdapter(AnyMethod).validate_python(method.model_dump()) == method


def test_names_are_all_different_and_unknown_ones_refused():
    assert len({method.method for method in METHODS}) == 7
    with pytest.raises(ValueError, match="orpo"):
        TypeAdapter(AnyMethod).validate_python({"method": "orpo"})


def test_only_methods_of_single_pictures_keep_ties():
    assert {type(method) for method in METHODS if method.keeps_ties} == {KTO, RWR}


def test_an_option_of_another_method_is_refused():
    with pytest.raises(ConfigError, match="SFT"):
        SFT(beta=3.0)
