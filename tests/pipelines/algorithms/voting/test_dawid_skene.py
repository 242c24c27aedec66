"""Dawid-Skene finds jurors' confusions without labels, and outvotes a majority of bad jurors."""

import numpy as np

from pipelines.algorithms.voting.ballots import NOTHING
from pipelines.algorithms.voting.dawid_skene import DawidSkene
from pipelines.algorithms.voting.panel import Majority

GOOD = np.array([[0.85, 0.1, 0.05], [0.1, 0.85, 0.05], [0.1, 0.1, 0.8]])
LAZY = np.tile([0.9, 0.05, 0.05], (3, 1))


def simulated(confusions, *, pairs, seed, silence=0.0):
    generator = np.random.default_rng(seed)
    truth = generator.choice(3, size=pairs, p=[0.4, 0.4, 0.2])
    said = [[generator.choice(3, p=confusion[label]) for confusion in confusions] for label in truth]
    ballots = np.array(said, dtype=np.int8)
    ballots[generator.random(ballots.shape) < silence] = NOTHING
    return truth, ballots


def test_the_confusions_of_a_simulation_are_found():
    _, ballots = simulated([GOOD] * 4, pairs=4000, seed=0, silence=0.1)
    found = DawidSkene().fit(ballots)
    assert np.abs(found.confusion - GOOD).max() < 0.06
    assert np.abs(found.prior - [0.4, 0.4, 0.2]).max() < 0.04


def test_jurors_that_answer_alike_whatever_is_shown_lose_their_weight():
    truth, ballots = simulated([GOOD] * 3 + [LAZY] * 6, pairs=2000, seed=1)
    weighted = (DawidSkene().verdicts(ballots).choice == truth).mean()
    plain = (Majority().verdicts(ballots).choice == truth).mean()
    best = max((ballots[:, juror] == truth).mean() for juror in range(9))
    assert weighted > best > plain


def test_the_posterior_is_as_sure_as_it_is_right():
    truth, ballots = simulated([GOOD] * 3, pairs=5000, seed=2)
    posterior = DawidSkene().fit(ballots).posterior
    assert abs(posterior.max(1).mean() - (posterior.argmax(1) == truth).mean()) < 0.03


def test_a_posterior_that_no_label_has_checked_is_given_out_neither_as_agreement_nor_as_probability():
    _, ballots = simulated([GOOD] * 3, pairs=200, seed=2)
    verdicts = DawidSkene().verdicts(ballots)
    behind = (ballots == verdicts.choice[:, None]).mean(1)
    assert np.array_equal(verdicts.agreement, behind) and verdicts.probability is None


def test_the_fit_is_a_probability_model_and_deterministic():
    _, ballots = simulated([GOOD, LAZY], pairs=200, seed=3, silence=0.5)
    one, two = DawidSkene().fit(ballots), DawidSkene().fit(ballots)
    assert np.array_equal(one.posterior, two.posterior)
    np.testing.assert_allclose(one.posterior.sum(1), 1)
    np.testing.assert_allclose(one.confusion.sum(2), 1)
