"""The audit of each juror: position bias, ties, failures, contradictions, and agreement with the other jurors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int8

from pipelines.algorithms.voting.ballots import NOTHING, TIE, Answers
from pipelines.algorithms.voting.panel import count_ballots, plurality


@dataclass(frozen=True)
class JurorAudit:
    """Shares in [0, 1] unless stated otherwise; None where there was nothing to count."""

    juror: str
    votes: int
    position_bias: float | None
    """P(the picture shown first is chosen | the answer is decided) - 1/2, in [-1/2, 1/2]; 0 is no bias."""
    tie_rate: float | None
    """Ties among readable answers."""
    failure_rate: float | None
    """Unparsable answers among all answers."""
    contradiction_rate: float | None
    """Pairs answered differently in the two orders, among pairs readable in both."""
    agreement_with_panel: float | None
    """Pairs on which the juror's ballot equals the plurality of the other jurors; None for a jury of one."""


def audit(given: Answers, *, ballots: Int8[np.ndarray, "pairs jurors"]) -> list[JurorAudit]:
    """One row per juror, in the order of `juror_names`; `ballots` must come from the same answers."""
    jurors = len(given.juror_names)
    by_answer = np.bincount((given.juror * 2 + given.order) * 4 + given.choice, minlength=jurors * 8)
    by_answer = by_answer.reshape(jurors, 2, 4)
    first = by_answer[:, 0, 0] + by_answer[:, 1, 1]
    second = by_answer[:, 0, 1] + by_answer[:, 1, 0]
    said = by_answer.sum(1)
    both, differ = _contradictions(given)
    compared, agreed = _agreements(ballots)
    found: list[JurorAudit] = []
    for j, name in enumerate(given.juror_names):
        first_share = _share(first[j], of=first[j] + second[j])
        one = JurorAudit(
            juror=name,
            votes=int(said[j].sum()),
            position_bias=None if first_share is None else first_share - 0.5,
            tie_rate=_share(said[j, TIE], of=said[j, :NOTHING].sum()),
            failure_rate=_share(said[j, NOTHING], of=said[j].sum()),
            contradiction_rate=_share(differ[j], of=both[j]),
            agreement_with_panel=_share(agreed[j], of=compared[j]),
        )
        found.append(one)
    return found


def _contradictions(given: Answers) -> tuple[np.ndarray, np.ndarray]:
    """For each juror: pairs readable in both orders, and those of them with different answers."""
    jurors = len(given.juror_names)
    cell = ((given.pair * jurors + given.juror) * 2 + given.order) * 4 + given.choice
    table = np.bincount(cell, minlength=len(given.pair_ids) * jurors * 8).reshape(-1, jurors, 2, 4)
    readable = table[..., :NOTHING] > 0
    both = readable[:, :, 0].any(2) & readable[:, :, 1].any(2)
    differ = both & (readable.any(2).sum(2) > 1)
    return both.sum(0), differ.sum(0)


def _agreements(ballots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each juror: pairs judged by it and by others, and those on which it says what the others' plurality says."""
    counts = count_ballots(ballots)
    rows = np.arange(len(ballots))
    compared: list[int] = []
    agreed: list[int] = []
    for said in ballots.T:
        others = counts.copy()
        others[rows, said] -= 1
        judged = (said != NOTHING) & others[:, :NOTHING].any(1)
        compared.append(int(judged.sum()))
        agreed.append(int((plurality(others) == said)[judged].sum()))
    return np.array(compared), np.array(agreed)


def _share(part: int | np.integer, *, of: int | np.integer) -> float | None:
    return float(part) / float(of) if of else None
