"""Jurors weighted by how they err, learned without labels (Dawid & Skene, 1979): EM over truths and confusion matrices.

A juror's row says what it answers when the truth is a, b or tie; jurors whose rows are alike carry no information and
lose their weight. Jurors are taken to err independently; where they do not, the posterior is too sure of itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int8
from pydantic import Field

from infra.config import Config
from pipelines.algorithms.voting.ballots import NOTHING, TIE
from pipelines.algorithms.voting.panel import Verdicts, count_ballots, share_behind

CLASSES = 3


@dataclass(frozen=True)
class Confusions:
    """What EM has found."""

    posterior: Float[np.ndarray, "pairs 3"]
    """Probability that the truth is a, b, tie."""
    confusion: Float[np.ndarray, "jurors 3 3"]
    """confusion[j, truth, answer]; rows sum to 1."""
    prior: Float[np.ndarray, " 3"]
    """Share of each truth."""
    rounds: int
    """Rounds of EM until the posteriors stood still."""


class DawidSkene(Config):
    """Verdicts from the posterior over truths."""

    kind: Literal["dawid_skene"] = "dawid_skene"
    smoothing: float = Field(1.0, gt=0)
    """Pseudo-answers added to every cell of a confusion matrix: jurors with few answers stay close to uninformative."""
    rounds: int = Field(200, ge=1)
    """Rounds of EM at most."""
    tolerance: float = Field(1e-6, gt=0)
    """Largest change of a posterior at which EM has converged."""

    def verdicts(self, ballots: Int8[np.ndarray, "pairs jurors"]) -> Verdicts:
        """The most probable truth of each pair; a tie where nobody judged. The posterior was never checked: not given."""
        counts = count_ballots(ballots)
        posterior = self.fit(ballots).posterior
        judged = counts[:, :NOTHING].any(1)
        choice = np.where(judged, posterior.argmax(1), TIE).astype(np.int8)
        return Verdicts(choice=choice, agreement=np.where(judged, share_behind(choice, counts=counts), 0.0), counts=counts)

    def fit(self, ballots: Int8[np.ndarray, "pairs jurors"]) -> Confusions:
        """EM from the shares of the ballots; deterministic, some 40 ns per ballot and round."""
        ballots = np.asarray(ballots)
        judged = (ballots != NOTHING).any(1)
        counts = count_ballots(ballots)[:, :NOTHING] + 1e-9
        posterior = counts / counts.sum(1, keepdims=True)
        rounds = 0
        while True:
            confusion = _confusions(ballots, posterior=posterior, smoothing=self.smoothing)
            weight = posterior[judged].sum(0) + self.smoothing
            prior = weight / weight.sum()
            updated = _posteriors(ballots, confusion=confusion, prior=prior)
            change = float(np.abs(updated - posterior).max(initial=0.0))
            posterior, rounds = updated, rounds + 1
            if change < self.tolerance or rounds == self.rounds:
                return Confusions(posterior=posterior, confusion=confusion, prior=prior, rounds=rounds)


def _confusions(ballots: np.ndarray, *, posterior: np.ndarray, smoothing: float) -> np.ndarray:
    """Each juror's answers by truth, smoothed, as shares of the truth."""
    jurors = ballots.shape[1]
    tables = np.empty((jurors, CLASSES, CLASSES))
    for juror in range(jurors):
        said = ballots[:, juror]
        for truth in range(CLASSES):
            tables[juror, truth] = np.bincount(said, weights=posterior[:, truth], minlength=4)[:CLASSES]
    tables += smoothing
    return tables / tables.sum(2, keepdims=True)


def _posteriors(ballots: np.ndarray, *, confusion: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Bayes' rule over independent jurors; nothing said adds nothing."""
    log_posterior = np.tile(np.log(prior), (len(ballots), 1))
    for juror in range(ballots.shape[1]):
        evidence = np.zeros((4, CLASSES))
        evidence[:CLASSES] = np.log(confusion[juror]).T
        log_posterior += evidence[ballots[:, juror]]
    log_posterior -= log_posterior.max(1, keepdims=True)
    posterior = np.exp(log_posterior)
    return posterior / posterior.sum(1, keepdims=True)
