"""A jury calibrated on a fifth of real human labels, on the other four fifths: how often is it right, and how sure?"""

from __future__ import annotations

import numpy as np

from pipelines.algorithms.voting.ballots import NOTHING, Consistency, ballots
from pipelines.algorithms.voting.calibrated import CalibratedJury
from pipelines.algorithms.voting.panel import Majority
from tests.benchmarks.measure import Result
from tests.support.genai_bench import folder, people, votes

SHARE, SPLITS = 0.2, 20


def splits(share: float = SHARE, count: int = SPLITS) -> dict[str, np.ndarray]:
    """For each split, on pairs whose labels the jury was not given: accuracy, its mean probability, and the single jurors'.

    Every setting is the default; the labels of the other share are used for these figures alone.
    """
    given, truth = votes(), people()
    panel = ballots(given, options=Consistency())
    found: dict[str, list[float]] = {name: [] for name in ("accuracy", "probability", "single", "jurors", "alone")}
    for seed in range(count):
        order = np.random.default_rng(seed).permutation(len(truth))
        known, unseen = np.split(order, [round(share * len(truth))])
        labels = np.full_like(truth, NOTHING)
        labels[known] = truth[known]
        calibration = CalibratedJury().fit(given, truth=labels, ballots=panel)
        verdicts = calibration.verdicts(given, ballots=panel)
        judged = unseen[np.isfinite(verdicts.probability[unseen])]  # pyright: ignore[reportOptionalSubscript]
        found["accuracy"].append(float((verdicts.choice == truth)[unseen].mean()))
        found["probability"].append(float(verdicts.probability[judged].mean()))  # pyright: ignore[reportOptionalSubscript]
        found["single"].append(float((panel[unseen] == truth[unseen, None]).mean(0).max()))
        found["jurors"].append(float(calibration.used.sum()))
        found["alone"].append(float(calibration.alone is not None))
    return {name: np.array(values) for name, values in found.items()}


def run() -> list[Result]:
    """Accuracy and calibration over the splits; nothing where the votes are not there."""
    if folder() is None:
        return []
    given, truth = votes(), people()
    majority = Majority().verdicts(ballots(given, options=Consistency()))
    plain = {
        "majority right": round(float((majority.choice == truth).mean()), 3),
        "majority agreement": round(float(majority.agreement.mean()), 3),
    }
    found = splits()
    accuracy, gap = found["accuracy"], found["probability"] - found["accuracy"]
    detail = {
        "best single": round(float(found["single"].mean()), 4),
        "worst split": round(float(accuracy.min()), 4),
        "jurors used": round(float(found["jurors"].mean()), 2),
    }
    return [
        Result("jury: accuracy on pairs without a label", float(accuracy.mean()), ">= 0.52", detail | plain),
        Result(
            "jury: mean probability - accuracy",
            abs(float(gap.mean())),
            "<= 0.03",
            {"signed": round(float(gap.mean()), 4), "largest of a split": round(float(np.abs(gap).max()), 3)},
        ),
    ]
