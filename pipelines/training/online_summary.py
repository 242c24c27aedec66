"""The figures of a round of online training, from its states and the notes of the ranks."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.schemas.training import RolloutState
from pipelines.training.online_methods import AnyOnlineMethod

SUMS = ("rollout_forwards", "scored")
MEANS = ("rollout_seconds", "scoring_seconds")


def summary(
    states: Sequence[RolloutState], notes: Sequence[Mapping[str, Any]], *, method: AnyOnlineMethod
) -> dict[str, float]:
    """What is logged of a round.

    reward: mean of the known scores; zero_advantage_share: states that are not learnt from; masked_share: NaN scores;
    policy_shift: mean log-probability ratio of the candidates to the reference; seconds per rank and forwards of all ranks;
    held_out_reward and held_out_measure where they were measured; for TAPO the branches' scores apart and order_flips.
    """
    scores = [score for state in states for score in state.score]
    known = [score for score in scores if math.isfinite(score)]
    found = {
        "reward": _mean(known),
        "masked_share": 1 - len(known) / len(scores),
        "zero_advantage_share": sum(not state.used for state in states) / len(states),
    }
    shifts = [now - then for one in states for now, then in zip(one.old, one.reference, strict=False)]
    if shifts:
        found["policy_shift"] = _mean(shifts)
    if method.kind in ("tapo", "dpo", "spo"):
        both = [one.score for one in states if all(map(math.isfinite, one.score))]
        found |= {"better_score": _mean([pair[0] for pair in both]), "worse_score": _mean([pair[1] for pair in both])}
    if method.kind == "tapo":
        found["order_flips"] = order_flips(states)
    found |= {name: float(sum(note[name] for note in notes)) for name in SUMS}
    found |= {name: _mean([note[name] for note in notes]) for name in MEANS}
    for name in ("reward", "measure"):
        values = [value for note in notes for value in note.get("held_out", {}).get(name, []) if math.isfinite(value)]
        if values:
            found[f"held_out_{name}"] = _mean(values)
    return found


def order_flips(states: Sequence[RolloutState]) -> float:
    """Share of neighbouring steps of a trajectory between which the order of its two branches changes."""
    trajectories: dict[tuple[int, str, int], list[RolloutState]] = defaultdict(list)
    for state in states:
        trajectories[int(state.id.split("-")[1]), state.prompt, state.start].append(state)
    flips, steps = 0, 0
    for found in trajectories.values():
        gaps = [one.score[0] - one.score[1] for one in sorted(found, key=lambda state: state.step)]
        for before, after in itertools.pairwise(gaps):
            steps += 1
            flips += before * after < 0
    return flips / steps if steps else 0.0


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
