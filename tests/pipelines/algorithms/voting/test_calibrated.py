"""A calibrated jury learns from labels, ignores what it has not checked, and corrects jurors that echo one another."""

import numpy as np
import pytest

from infra.config import ConfigError
from pipelines.algorithms.voting.ballots import CHOICES, NOTHING, Consistency, answers, ballots
from pipelines.algorithms.voting.calibrated import CalibratedJury


def simulated(*, pairs, seed):
    """A good juror, one that picks the first picture shown, and three echoes of the latter."""
    generator = np.random.default_rng(seed)
    truth = generator.choice(3, size=pairs, p=[0.4, 0.4, 0.2]).astype(np.int8)
    rows = []
    for pair, label in enumerate(truth):
        for order in ("ab", "ba"):
            said = int(label) if generator.random() < 0.75 else int(generator.integers(3))
            rows.append((f"p{pair:05d}", "good", order, CHOICES[said]))
            first = "a" if order == "ab" else "b"
            rows += [(f"p{pair:05d}", f"lazy{copy}", order, first) for copy in range(4)]
    columns = [list(column) for column in zip(*rows, strict=True)]
    return truth, answers(columns[0], juror=columns[1], order=columns[2], choice=columns[3])


def labelled(truth, *, share):
    known = truth.copy()
    known[int(share * len(truth)) :] = NOTHING
    return known


def test_a_calibrated_jury_is_not_worse_than_its_best_member_on_pairs_it_was_not_shown():
    truth, given = simulated(pairs=1200, seed=0)
    calibration = CalibratedJury().fit(given, truth=labelled(truth, share=0.5))
    panel = ballots(given, options=Consistency())
    verdicts = calibration.verdicts(given, ballots=panel)
    unseen = slice(600, None)
    best = max((panel[unseen, juror] == truth[unseen]).mean() for juror in range(panel.shape[1]))
    assert (verdicts.choice == truth)[unseen].mean() >= best


def test_a_juror_that_always_picks_the_first_adds_no_evidence():
    truth, given = simulated(pairs=600, seed=1)
    evidence = CalibratedJury().fit(given, truth=truth).evidence
    lazy = [place for place, name in enumerate(given.juror_names) if name.startswith("lazy")]
    assert np.abs(evidence[lazy]).max() < 0.02
    assert np.abs(evidence[given.juror_names.index("good")]).max() > 0.5


def test_evidence_shrinks_to_nothing_where_labels_are_few():
    truth, given = simulated(pairs=600, seed=2)
    few = CalibratedJury().fit(given, truth=labelled(truth, share=0.01)).evidence
    many = CalibratedJury().fit(given, truth=truth).evidence
    assert np.abs(few).max() < np.abs(many).max() / 2


def test_without_enough_labels_it_is_refused():
    truth, given = simulated(pairs=20, seed=3)
    with pytest.raises(ConfigError, match="dawid_skene"):
        CalibratedJury().fit(given, truth=np.full_like(truth, NOTHING))


def test_another_jury_is_refused():
    truth, given = simulated(pairs=40, seed=4)
    calibration = CalibratedJury().fit(given, truth=truth)
    other = answers(["p"], juror=["stranger"], order=["ab"], choice=["a"])
    with pytest.raises(ConfigError, match="same jurors"):
        calibration.verdicts(other, ballots=ballots(other, options=Consistency()))
