"""A calibrated jury learns from labels, ignores what it has not checked, and corrects jurors that echo one another."""

import numpy as np
import pytest
from scipy.stats import chi2, chi2_contingency

from infra.config import ConfigError
from pipelines.algorithms.voting.ballots import CHOICES, NOTHING, Consistency, answers, ballots
from pipelines.algorithms.voting.calibrated import CalibratedJury
from pipelines.algorithms.voting.independence import independence_p_value


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


def panel_of(given):
    return ballots(given, options=Consistency())


def labelled(truth, *, share):
    known = truth.copy()
    known[int(share * len(truth)) :] = NOTHING
    return known


def test_a_calibrated_jury_is_not_worse_than_its_best_member_on_pairs_it_was_not_shown():
    truth, given = simulated(pairs=1200, seed=0)
    calibration = CalibratedJury().fit(given, truth=labelled(truth, share=0.5), ballots=panel_of(given))
    panel = panel_of(given)
    verdicts = calibration.verdicts(given, ballots=panel)
    unseen = slice(600, None)
    best = max((panel[unseen, juror] == truth[unseen]).mean() for juror in range(panel.shape[1]))
    assert (verdicts.choice == truth)[unseen].mean() >= best


def test_a_juror_that_always_picks_the_first_adds_no_evidence():
    truth, given = simulated(pairs=600, seed=1)
    evidence = CalibratedJury().fit(given, truth=truth, ballots=panel_of(given)).evidence
    lazy = [place for place, name in enumerate(given.juror_names) if name.startswith("lazy")]
    assert np.abs(evidence[lazy]).max() == 0
    assert np.abs(evidence[given.juror_names.index("good")]).max() > 0.5


def test_evidence_shrinks_to_nothing_where_labels_are_few():
    truth, given = simulated(pairs=600, seed=2)
    few = CalibratedJury().fit(given, truth=labelled(truth, share=0.01), ballots=panel_of(given)).evidence
    many = CalibratedJury().fit(given, truth=truth, ballots=panel_of(given)).evidence
    assert np.abs(few).max() < np.abs(many).max() / 2


def test_without_enough_labels_it_is_refused():
    truth, given = simulated(pairs=20, seed=3)
    with pytest.raises(ConfigError, match="dawid_skene"):
        CalibratedJury().fit(given, truth=np.full_like(truth, NOTHING), ballots=panel_of(given))


def test_another_jury_is_refused():
    truth, given = simulated(pairs=40, seed=4)
    calibration = CalibratedJury().fit(given, truth=truth, ballots=panel_of(given))
    other = answers(["p"], juror=["stranger"], order=["ab"], choice=["a"])
    with pytest.raises(ConfigError, match="same jurors"):
        calibration.verdicts(other, ballots=ballots(other, options=Consistency()))


def test_the_test_of_independence_is_pearsons_companion_and_strata_add_up():
    table = np.array([[30.0, 10.0, 5.0], [12.0, 25.0, 8.0], [9.0, 9.0, 9.0]])
    found = chi2_contingency(table, correction=False, lambda_="log-likelihood")
    assert independence_p_value(table[None]) == pytest.approx(found.pvalue, rel=1e-9)
    both = chi2.sf(2 * found.statistic, 2 * found.dof)
    assert independence_p_value(np.stack([table, table])) == pytest.approx(both, rel=1e-9)
    assert independence_p_value(np.zeros((2, 3, 4))) == 1.0


def test_jurors_that_do_not_depend_on_the_labels_pass_the_test_as_rarely_as_the_level_says():
    generator = np.random.default_rng(5)
    tables = generator.multinomial(300, np.full(12, 1 / 12), size=2000).reshape(2000, 1, 3, 4).astype(float)
    passed = np.mean([independence_p_value(one) < 0.05 for one in tables])
    assert 0.03 < passed < 0.07


def test_where_no_juror_is_shown_to_depend_on_the_labels_the_one_most_often_right_speaks_alone():
    truth, given = simulated(pairs=600, seed=6)
    panel = panel_of(given)
    few = labelled(truth, share=0.01)
    calibration = CalibratedJury(level=1e-12).fit(given, truth=few, ballots=panel)
    good = given.juror_names.index("good")
    assert calibration.alone == good and calibration.used.sum() == 1
    assert np.array_equal(calibration.verdicts(given, ballots=panel).choice, panel[:, good])


def test_the_probability_is_that_of_being_right_and_the_agreement_a_share_of_ballots():
    truth, given = simulated(pairs=2000, seed=7)
    panel = panel_of(given)
    verdicts = CalibratedJury().fit(given, truth=labelled(truth, share=0.5), ballots=panel).verdicts(given, ballots=panel)
    unseen = slice(1000, None)
    assert abs(verdicts.probability[unseen].mean() - (verdicts.choice == truth)[unseen].mean()) < 0.03
    assert np.array_equal(verdicts.agreement, (panel == verdicts.choice[:, None]).mean(1))
