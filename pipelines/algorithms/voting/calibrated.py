"""A jury calibrated on a human-labelled share: each juror's confusion by order, shrunk to nothing where data are few.

P(answer | truth) is the juror's counted row pulled towards its answers whatever the truth, so a juror that answers
alike whatever is shown, or that people have hardly checked, adds no evidence. Jurors repeat one another, which naive
evidence counts twice: one exponent on all evidence, chosen by cross-validated likelihood, corrects it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int8
from pydantic import Field

from infra.config import Config, ConfigError
from pipelines.algorithms.voting.ballots import NOTHING, ORDERS, TIE, Answers
from pipelines.algorithms.voting.panel import Verdicts, count_ballots

CLASSES = 3
_EXPONENTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@dataclass(frozen=True)
class Calibration:
    """What was learned from the labelled share."""

    juror_names: tuple[str, ...]
    evidence: Float[np.ndarray, "jurors 2 4 3"]
    """log P(answer | truth) - log P(answer), by juror, order, answer, truth; 0 where nothing is known."""
    prior: Float[np.ndarray, " 3"]
    """Share of each truth among the labels."""
    exponent: float
    """Factor on all evidence: below 1 where jurors repeat one another."""

    def posterior(self, given: Answers) -> Float[np.ndarray, "pairs 3"]:
        """Probability of a, b, tie for each pair."""
        return _posterior(given, evidence=self.evidence, prior=self.prior, exponent=self.exponent)

    def verdicts(self, given: Answers, *, ballots: Int8[np.ndarray, "pairs jurors"]) -> Verdicts:
        """The most probable truth from every single answer; `ballots` are counted beside it for the record."""
        if given.juror_names != self.juror_names:
            raise ConfigError(
                f"the jury was calibrated with {', '.join(self.juror_names)} and is asked about "
                f"{', '.join(given.juror_names)}; calibrate on votes of the same jurors"
            )
        posterior = self.posterior(given)
        counts = count_ballots(ballots)
        judged = given.table()[:, :, :NOTHING].any((1, 2))
        choice = np.where(judged, posterior.argmax(1), TIE).astype(np.int8)
        return Verdicts(choice=choice, agreement=np.where(judged, posterior.max(1), 0.0), counts=counts)


class CalibratedJury(Config):
    """How jurors are calibrated on labels of people."""

    kind: Literal["calibrated"] = "calibrated"
    shrinkage: float = Field(20.0, gt=0)
    """Labels a row of a confusion must have before it counts for half."""
    folds: int = Field(5, ge=2)
    """Folds of the labelled share on which the exponent is chosen."""

    def fit(self, given: Answers, *, truth: Int8[np.ndarray, " pairs"]) -> Calibration:
        """Learns from pairs whose `truth` is a, b or tie; the code for nothing marks pairs without a label."""
        labelled = np.flatnonzero(truth != NOTHING)
        if len(labelled) < self.folds:
            raise ConfigError(
                f"a calibrated jury needs at least {self.folds} pairs labelled by people, got {len(labelled)}; "
                "label more, or use dawid_skene, which needs none"
            )
        likelihood = np.zeros(len(_EXPONENTS))
        for fold in range(self.folds):
            held_out = labelled[fold :: self.folds]
            known = truth.copy()
            known[held_out] = NOTHING
            evidence, prior = self._learn(given, truth=known)
            for place, exponent in enumerate(_EXPONENTS):
                posterior = _posterior(given, evidence=evidence, prior=prior, exponent=exponent)
                likelihood[place] += np.log(posterior[held_out, truth[held_out]]).sum()
        evidence, prior = self._learn(given, truth=truth)
        exponent = _EXPONENTS[int(likelihood.argmax())]
        return Calibration(juror_names=given.juror_names, evidence=evidence, prior=prior, exponent=exponent)

    def _learn(self, given: Answers, *, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Evidence of every juror, order and answer, and the prior over truths."""
        known = truth[given.pair] != NOTHING
        shape = (len(given.juror_names), len(ORDERS), CLASSES, 4)
        cell = ((given.juror * 2 + given.order) * CLASSES + truth[given.pair]) * 4 + given.choice
        counted = np.bincount(cell[known], minlength=int(np.prod(shape))).reshape(shape).astype(float)
        # One answer of each kind, spread over the truths as the answers are: what was never said is no evidence.
        by_truth = counted.sum(3, keepdims=True) + 1e-9
        counted += by_truth / by_truth.sum(2, keepdims=True)
        whatever = counted.sum(2, keepdims=True)
        whatever /= whatever.sum(3, keepdims=True)
        row = (counted + self.shrinkage * whatever) / (counted.sum(3, keepdims=True) + self.shrinkage)
        evidence = np.log(row / whatever).transpose(0, 1, 3, 2)
        labels = np.bincount(truth[truth != NOTHING], minlength=CLASSES) + 1.0
        return evidence, labels / labels.sum()


def _posterior(given: Answers, *, evidence: np.ndarray, prior: np.ndarray, exponent: float) -> np.ndarray:
    """Bayes' rule with tempered evidence."""
    log_posterior = np.tile(np.log(prior), (len(given.pair_ids), 1))
    said = evidence[given.juror, given.order, given.choice]
    for truth in range(CLASSES):
        log_posterior[:, truth] += exponent * np.bincount(given.pair, weights=said[:, truth], minlength=len(given.pair_ids))
    log_posterior -= log_posterior.max(1, keepdims=True)
    posterior = np.exp(log_posterior)
    return posterior / posterior.sum(1, keepdims=True)
