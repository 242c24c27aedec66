"""What a rollout leaves to learn from: its stochastic steps, and the examples that each algorithm makes of them.

An example is one or two states with the candidates of them that are used, as `moves.Moves` wants them: `of` says which of
its states each candidate belongs to. MoveExamples lie prompt by prompt, then branch by branch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Bool, Float, Int

from infra.lazy import lazy
from pipelines.algorithms.online.advantage import GroupAdvantage
from pipelines.algorithms.online.keep import Threshold, candidate_pairs

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")


@dataclass(frozen=True, eq=False)
class RolloutStep:
    """One stochastic step of a rollout: every branch of every prompt with its candidates."""

    index: int
    """The step, counted from the noise end."""
    timestep: float
    """What the denoiser was told: the scheduler's own number."""
    s: float
    """Time at its start, in (0, 1]; 1 is noise."""
    s_next: float
    """Time of its candidates, below s."""
    sd: float
    """Standard deviation of each element of a candidate around its mean."""
    x: Float[torch.Tensor, "prompts branches *shape"]
    """The states at s."""
    candidates: Float[torch.Tensor, "prompts branches k *shape"]
    log_prob: Float[torch.Tensor, "prompts branches k"]
    """The policy's, of every candidate (`diffusion.stochastic.log_prob`)."""
    reference: Float[torch.Tensor, "prompts branches k"] | None
    """The reference's; None where it was not asked."""
    scores: Float[torch.Tensor, "prompts branches k"]
    """Rewards at s_next; NaN where a candidate was not scored or its reward failed."""
    kept: Int[torch.Tensor, "prompts branches"]
    """Which candidate the branch went on with."""


@dataclass(frozen=True, eq=False)
class MoveExamples:
    """MoveExamples of one step."""

    step: RolloutStep
    x: Float[torch.Tensor, "examples states *shape"]
    candidates: Float[torch.Tensor, "examples used *shape"]
    of: tuple[int, ...]
    """Which state of its example each candidate belongs to."""
    old: Float[torch.Tensor, "examples used"]
    reference: Float[torch.Tensor, "examples used"] | None
    value: Float[torch.Tensor, "examples used"]
    """See `moves.Moves`; 0 in an example that is not used."""
    used: Bool[torch.Tensor, " examples"]


def trajectory_examples(
    step: RolloutStep, *, advantage: Float[torch.Tensor, "prompts branches"], used: Bool[torch.Tensor, " prompts"]
) -> MoveExamples:
    """Flow-GRPO and DanceGRPO: the candidate that went on, valued by its branch's advantage at the end."""
    kept = step.kept.flatten()[:, None]
    value = torch.where(used[:, None], advantage, 0.0).flatten()[:, None]
    return _of_one_state(step, kept, value=value, used=used[:, None].expand_as(advantage).flatten())


def group_examples(
    step: RolloutStep, *, advantage: GroupAdvantage, typical: Float[torch.Tensor, " states"] | None = None
) -> MoveExamples:
    """Step-GRPO: every candidate of a state, valued by its advantage among them; `typical` as in `GroupAdvantage.of`."""
    found = advantage.of(step.scores.flatten(0, 1), typical=typical)
    every = torch.arange(step.scores.shape[2], device=step.scores.device).expand(len(found.used), -1)
    return _of_one_state(step, every, value=found.values, used=found.used)


def pair_examples(step: RolloutStep, *, threshold: Threshold, low: float, high: float) -> MoveExamples:
    """SPO and LPO: best (+1) and worst (-1) candidate of a state; `low` to `high` is the range of sd over the steps.

    LPO's threshold grows with "sigma_t", which is read as the standard deviation of the step.
    """
    scores = step.scores.flatten(0, 1)
    level = torch.full((len(scores),), step.sd, device=scores.device)
    pairs = candidate_pairs(scores, threshold=threshold.at(level, low=low, high=high))
    value = torch.tensor([1.0, -1.0], device=scores.device) * pairs.used[:, None]
    return _of_one_state(step, torch.stack([pairs.best, pairs.worst], dim=1), value=value, used=pairs.used)


def branch_pair_examples(step: RolloutStep) -> MoveExamples:
    """TAPO: what the win branch (0) and the lose branch (1) went on with, +1 and -1, each at a state of its own.

    Not used where a score of either is unknown, or where the win branch's is not the higher one.
    """
    assert step.kept.shape[1] == 2, "TAPO has a win branch and a lose branch"
    index = step.kept[..., None]
    scores = step.scores.gather(2, index)[..., 0]
    used = scores[:, 0] > scores[:, 1]
    value = torch.tensor([1.0, -1.0], device=scores.device) * used[:, None]
    return MoveExamples(
        step=step,
        x=step.x,
        candidates=_picked(step.candidates.flatten(0, 1), index.flatten(0, 1)).unflatten(0, step.kept.shape)[:, :, 0],
        of=(0, 1),
        old=step.log_prob.gather(2, index)[..., 0],
        reference=None if step.reference is None else step.reference.gather(2, index)[..., 0],
        value=value,
        used=used,
    )


def _of_one_state(
    step: RolloutStep,
    index: Int[torch.Tensor, "states used"],
    *,
    value: Float[torch.Tensor, "states used"],
    used: Bool[torch.Tensor, " states"],
) -> MoveExamples:
    return MoveExamples(
        step=step,
        x=step.x.flatten(0, 1)[:, None],
        candidates=_picked(step.candidates.flatten(0, 1), index),
        of=(0,) * index.shape[1],
        old=step.log_prob.flatten(0, 1).gather(1, index),
        reference=None if step.reference is None else step.reference.flatten(0, 1).gather(1, index),
        value=value,
        used=used,
    )


def _picked(
    candidates: Float[torch.Tensor, "states k *shape"], index: Int[torch.Tensor, "states used"]
) -> Float[torch.Tensor, "states used *shape"]:
    return candidates[torch.arange(len(index), device=index.device)[:, None], index]
