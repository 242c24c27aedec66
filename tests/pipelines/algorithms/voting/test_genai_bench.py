"""Real votes: eleven vision-language judges and people on 1,735 image pairs (GenAI-Bench); skipped where absent."""

import numpy as np
import pytest

from pipelines.algorithms.voting.audit import audit
from pipelines.algorithms.voting.ballots import NOTHING, Consistency, ballots
from pipelines.algorithms.voting.calibrated import CalibratedJury
from pipelines.algorithms.voting.dawid_skene import DawidSkene
from pipelines.algorithms.voting.panel import Majority
from tests.benchmarks.jury import splits
from tests.support.genai_bench import folder, people, votes

pytestmark = pytest.mark.skipif(folder() is None, reason="the votes of GenAI-Bench are not beside the checkout")


@pytest.fixture(scope="module")
def given():
    return votes()


@pytest.fixture(scope="module")
def panel(given):
    return ballots(given, options=Consistency())


@pytest.fixture(scope="module")
def truth():
    return people()


def halves(pairs, *, seed):
    order = np.random.default_rng(seed).permutation(pairs)
    return order[: pairs // 2], order[pairs // 2 :]


def accuracies(panel, truth):
    return (panel == truth[:, None]).mean(0)


def test_the_published_accuracies_of_single_judges_come_out(given, panel, truth):
    accuracy = dict(zip(given.juror_names, accuracies(panel, truth), strict=True))
    assert max(accuracy, key=accuracy.__getitem__) == "gpt4o"
    assert accuracy["gpt4o"] == pytest.approx(0.480, abs=0.001)
    answering = {row.juror for row in audit(given, ballots=panel) if row.failure_rate < 0.5}
    assert min(accuracy[juror] for juror in answering) == pytest.approx(0.26, abs=0.005)


def test_the_audit_finds_the_judges_that_answer_a_whatever_is_shown(given, panel):
    figures = {row.juror: row for row in audit(given, ballots=panel)}
    assert figures["llava"].position_bias == 0.5 and figures["cogvlm"].position_bias == 0.5
    assert abs(figures["gpt4o"].position_bias) < 0.075
    assert figures["instructblip"].failure_rate == pytest.approx(0.89, abs=0.005)


def test_the_plain_majority_is_worse_than_the_best_judge(panel, truth):
    plain = (Majority().verdicts(panel).choice == truth).mean()
    assert plain == pytest.approx(0.38, abs=0.005)
    assert plain < accuracies(panel, truth).max() - 0.05


def test_dawid_skene_without_a_label_is_better_than_the_best_judge(panel, truth):
    assert (DawidSkene().verdicts(panel).choice == truth).mean() >= accuracies(panel, truth).max() + 0.02


@pytest.mark.parametrize("seed", range(4))
def test_a_jury_calibrated_on_one_half_is_better_than_the_best_judge_on_the_other(given, panel, truth, seed):
    known, unseen = halves(len(truth), seed=seed)
    labels = np.full_like(truth, NOTHING)
    labels[known] = truth[known]
    calibration = CalibratedJury().fit(given, truth=labels, ballots=panel)
    right = calibration.verdicts(given, ballots=panel).choice == truth
    assert right[unseen].mean() >= accuracies(panel[unseen], truth[unseen]).max()


def test_agreement_is_no_probability_of_being_right(panel, truth):
    plain = Majority().verdicts(panel)
    assert plain.agreement.mean() > (plain.choice == truth).mean() + 0.3
    assert plain.probability is None


def test_a_fifth_of_the_labels_makes_a_jury_that_beats_the_best_judge_and_knows_how_sure_it_is():
    found = splits()
    assert found["accuracy"].mean() >= 0.52 > found["single"].mean() + 0.03
    assert abs((found["probability"] - found["accuracy"]).mean()) <= 0.03


def test_with_a_hundredth_of_the_labels_the_best_judge_speaks_alone():
    found = splits(share=0.01)
    assert found["alone"].mean() > 0.5
