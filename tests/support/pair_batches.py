"""Batches of pairs for the laws of preference losses: from numbers, or from random pictures and clips."""

import torch

from pipelines.algorithms.diffusion.path import FlowPath, per_sample_error
from pipelines.algorithms.preference.pairwise import Member, PairBatch

PICTURES, CLIPS = (2, 3, 4), (2, 3, 2, 2)


def from_errors(winner, loser, reference_winner=None, reference_loser=None, **columns) -> PairBatch:
    """Pairs of those errors (lists or tensors, fp64), with predictions that have them; no reference if none is given."""
    members = []
    for error, reference in ((winner, reference_winner), (loser, reference_loser)):
        error = torch.as_tensor(error, dtype=torch.float64)
        root = error.detach().sqrt().unsqueeze(1)
        known = None if reference is None else torch.as_tensor(reference, dtype=torch.float64)
        predicted = None if known is None else known.detach().sqrt().unsqueeze(1)
        members.append(Member(root, torch.zeros_like(root), error, predicted, known))
    return _batch(*members, **columns)


def from_noise(seed=0, *, pairs=3, shape=PICTURES, drift=0.3, **columns) -> PairBatch:
    """Random predictions (leaves, fp32) of a policy that is `drift` standard deviations away from its reference."""
    generator = torch.Generator().manual_seed(seed)
    noise, *data = (torch.randn((pairs, *shape), generator=generator) for _ in range(3))
    t = torch.rand(pairs, generator=generator)
    members = []
    for x_0 in data:
        target = FlowPath().sample(x_0, noise=noise, t=t).target
        reference = target + 0.7 * torch.randn(target.shape, generator=generator)
        prediction = (reference + drift * torch.randn(target.shape, generator=generator)).requires_grad_()
        error, reference_error = (per_sample_error(each, target=target) for each in (prediction, reference))
        members.append(Member(prediction, target, error, reference, reference_error))
    return _batch(*members, **({"t": t} | columns))


def with_sums(batch: PairBatch) -> PairBatch:
    """The same pairs with errors as sums over elements instead of means."""
    elements = batch.winner.prediction[0].numel()
    members = {}
    for side in ("winner", "loser"):
        member = getattr(batch, side)
        sums = elements * member.error, elements * member.reference_error
        members[side] = Member(member.prediction, member.target, sums[0], member.reference, sums[1])
    rest = {name: getattr(batch, name) for name in ("t", "gap", "probability", "tie", "reward_winner", "reward_loser")}
    return PairBatch(**members, **rest)


def means_of(method, batch: PairBatch) -> dict[str, float]:
    """What a trainer hands to `losses`: the means of `statistics` over the batch."""
    return {name: values.double().mean().item() for name, values in method.statistics(batch).items()}


def loss(method, batch: PairBatch):
    """The losses of a batch that is the whole batch."""
    return method.losses(batch, means=means_of(method, batch)).losses


def _batch(winner, loser, **columns):
    like = winner.error.detach()
    plain = {
        "t": torch.full_like(like, 0.5),
        "gap": torch.zeros_like(like),
        "probability": torch.ones_like(like),
        "tie": torch.zeros_like(like, dtype=torch.bool),
        "reward_winner": torch.zeros_like(like),
        "reward_loser": torch.zeros_like(like),
    }
    given = {name: torch.as_tensor(value, dtype=plain[name].dtype) for name, value in columns.items()}
    return PairBatch(winner=winner, loser=loser, **(plain | given))
