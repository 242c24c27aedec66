"""A jury calibrated on a human-labelled share: each juror's confusion by order, shrunk to nothing where data are few.

P(answer | truth) is the juror's counted row pulled towards its answers whatever the truth. Jurors whose answers do not
depend on the human labels, by a likelihood-ratio test, are left out: each adds noise. Jurors repeat one another, which
naive evidence counts twice: one exponent on all evidence, chosen by cross-validated likelihood, corrects it. Where no
juror passes the test, labels are too few to calibrate a jury: then the juror that is most often right on the labelled
pairs speaks alone. Being right is counted on the juror's own word, which no label has shaped, so the labelled share is
a fair measure of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int8
from pydantic import Field

from infra.config import Config, ConfigError
from pipelines.algorithms.voting.ballots import NOTHING, ORDERS, TIE, Answers
from pipelines.algorithms.voting.independence import independence_p_value
from pipelines.algorithms.voting.panel import Verdicts, count_ballots, share_behind

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
    used: Bool[np.ndarray, " jurors"]
    """Whether the juror's evidence counts; the others have none."""
    alone: int | None
    """Place of the juror that speaks alone, its own word being the choice; None where the jury decides."""

    def posterior(self, given: Answers) -> Float[np.ndarray, "pairs 3"]:
        """Probability of a, b, tie for each pair."""
        return _posterior(given, evidence=self.evidence, prior=self.prior, exponent=self.exponent)

    def verdicts(self, given: Answers, *, ballots: Int8[np.ndarray, "pairs jurors"]) -> Verdicts:
        """The most probable truth, or the word of the juror that speaks alone, and the probability that it is right.

        `ballots`, of all jurors, are counted for the record. A pair without a readable answer of a juror that counts is
        a tie, without a probability.
        """
        if given.juror_names != self.juror_names:
            raise ConfigError(
                f"the jury was calibrated with {', '.join(self.juror_names)} and is asked about "
                f"{', '.join(given.juror_names)}; calibrate on votes of the same jurors"
            )
        posterior = self.posterior(given)
        if self.alone is None:
            judged = given.table()[:, self.used, :NOTHING].any((1, 2))
            said = posterior.argmax(1)
        else:
            judged = ballots[:, self.alone] != NOTHING
            said = ballots[:, self.alone]
        choice = np.where(judged, said, TIE).astype(np.int8)
        counts = count_ballots(ballots)
        return Verdicts(
            choice=choice,
            agreement=np.where(judged, share_behind(choice, counts=counts), 0.0),
            counts=counts,
            probability=np.where(judged, posterior[np.arange(len(choice)), choice], np.nan),
        )


class CalibratedJury(Config):
    """How jurors are calibrated on labels of people."""

    kind: Literal["calibrated"] = "calibrated"
    shrinkage: float = Field(20.0, gt=0)
    """Number of labels at which a row of a confusion matrix counts for half."""
    folds: int = Field(5, ge=2)
    """Folds of the labelled share on which the exponent is chosen."""
    level: float = Field(0.01, gt=0, le=1)
    """A juror counts where the test of independence from the human labels gives a p-value below this; 1 keeps all."""

    def fit(
        self, given: Answers, *, truth: Int8[np.ndarray, " pairs"], ballots: Int8[np.ndarray, "pairs jurors"]
    ) -> Calibration:
        """Learns from pairs whose `truth` is a, b or tie; the code for nothing marks pairs without a label."""
        labelled = np.flatnonzero(truth != NOTHING)
        if len(labelled) < self.folds:
            raise ConfigError(
                f"a calibrated jury needs at least {self.folds} pairs labelled by people, got {len(labelled)}; "
                "label more, or use dawid_skene, which needs none"
            )
        counted = self._counted(given, truth=truth)
        used, alone = self._used(counted), None
        if not used.any():
            alone = int((ballots[labelled] == truth[labelled, None]).mean(0).argmax())
            used[alone] = True
        exponent = self._exponent(given, truth=truth, labelled=labelled, alone=alone)
        evidence, prior = self._evidence(counted, used=used), _prior(truth)
        return Calibration(given.juror_names, evidence, prior, exponent, used, alone)

    def _exponent(self, given: Answers, *, truth: np.ndarray, labelled: np.ndarray, alone: int | None) -> float:
        """The one with the highest likelihood of held-out labels, jurors being chosen anew without each fold."""
        likelihood = np.zeros(len(_EXPONENTS))
        for fold in range(self.folds):
            held_out = labelled[fold :: self.folds]
            known = truth.copy()
            known[held_out] = NOTHING
            counted = self._counted(given, truth=known)
            used = self._used(counted) if alone is None else np.arange(len(counted)) == alone
            evidence, prior = self._evidence(counted, used=used), _prior(known)
            for place, exponent in enumerate(_EXPONENTS):
                posterior = _posterior(given, evidence=evidence, prior=prior, exponent=exponent)
                likelihood[place] += np.log(posterior[held_out, truth[held_out]]).sum()
        return _EXPONENTS[int(likelihood.argmax())]

    @staticmethod
    def _counted(given: Answers, *, truth: np.ndarray) -> np.ndarray:
        """Answers on labelled pairs, [jurors, order, truth, answer]."""
        known = truth[given.pair] != NOTHING
        shape = (len(given.juror_names), len(ORDERS), CLASSES, 4)
        cell = ((given.juror * 2 + given.order) * CLASSES + truth[given.pair]) * 4 + given.choice
        return np.bincount(cell[known], minlength=int(np.prod(shape))).reshape(shape).astype(float)

    def _used(self, counted: np.ndarray) -> np.ndarray:
        """Which jurors' answers depend on the labels, their two orders tested together."""
        if self.level == 1:
            return np.ones(len(counted), dtype=bool)
        return np.array([independence_p_value(tables) < self.level for tables in counted], dtype=bool)

    def _evidence(self, counted: np.ndarray, *, used: np.ndarray) -> np.ndarray:
        """[jurors, order, answer, truth]; 0 for jurors that are left out."""
        # One answer of each kind, spread over the truths as the answers are: what was never said is no evidence.
        by_truth = counted.sum(3, keepdims=True) + 1e-9
        counted = counted + by_truth / by_truth.sum(2, keepdims=True)
        whatever = counted.sum(2, keepdims=True)
        whatever /= whatever.sum(3, keepdims=True)
        row = (counted + self.shrinkage * whatever) / (counted.sum(3, keepdims=True) + self.shrinkage)
        evidence = np.log(row / whatever).transpose(0, 1, 3, 2)
        return np.where(used[:, None, None, None], evidence, 0.0)


def _prior(truth: np.ndarray) -> np.ndarray:
    labels = np.bincount(truth[truth != NOTHING], minlength=CLASSES) + 1.0
    return labels / labels.sum()


def _posterior(given: Answers, *, evidence: np.ndarray, prior: np.ndarray, exponent: float) -> np.ndarray:
    """Bayes' rule with tempered evidence."""
    log_posterior = np.tile(np.log(prior), (len(given.pair_ids), 1))
    said = evidence[given.juror, given.order, given.choice]
    for truth in range(CLASSES):
        log_posterior[:, truth] += exponent * np.bincount(given.pair, weights=said[:, truth], minlength=len(given.pair_ids))
    log_posterior -= log_posterior.max(1, keepdims=True)
    posterior = np.exp(log_posterior)
    return posterior / posterior.sum(1, keepdims=True)
