"""Counting verdicts: plurality and unanimity."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipelines.algorithms.voting.ballots import NOTHING, TIE, A, B
from pipelines.algorithms.voting.dawid_skene import DawidSkene
from pipelines.algorithms.voting.panel import Majority, Unanimous

panels = arrays(np.int8, st.tuples(st.integers(1, 12), st.integers(1, 5)), elements=st.integers(0, 3))


def verdict(rule, *row):
    verdicts = rule.verdicts(np.array([row], dtype=np.int8))
    return verdicts.choice[0], verdicts.agreement[0]


def test_the_plurality_decides_and_its_share_is_the_agreement():
    assert verdict(Majority(), A, A, B, TIE) == (A, 0.5)


def test_equal_first_places_are_a_tie():
    assert verdict(Majority(), A, A, B, B) == (TIE, 0.0)
    assert verdict(Majority(), A, TIE) == (TIE, 0.5)


def test_who_abstains_is_not_counted():
    assert verdict(Majority(), B, B, NOTHING) == (B, 1.0)
    assert verdict(Majority(minimum=1), B, NOTHING, NOTHING) == (B, 1.0)


@pytest.mark.parametrize("rule", [Majority(), Unanimous(), DawidSkene()])
def test_a_pair_nobody_judged_is_a_tie_without_agreement(rule):
    verdicts = rule.verdicts(np.array([[A, A], [NOTHING, NOTHING]], dtype=np.int8))
    assert verdicts.choice[1] == TIE and verdicts.agreement[1] == 0


def test_one_dissenter_or_too_few_ballots_break_unanimity():
    assert verdict(Unanimous(), A, A, A) == (A, 1.0)
    assert verdict(Unanimous(), A, A, TIE)[0] == TIE
    assert verdict(Unanimous(minimum=2), A, NOTHING, NOTHING)[0] == TIE


def test_one_readable_ballot_of_three_is_neither_unanimous_nor_a_majority():
    assert verdict(Unanimous(), A, NOTHING, NOTHING) == (TIE, 0.0)
    assert verdict(Majority(), A, NOTHING, NOTHING) == (TIE, 0.0)
    assert verdict(Unanimous(), A, A, NOTHING) == (TIE, 0.0)
    assert verdict(Unanimous(minimum=2), A, A, NOTHING) == (A, 1.0)


@given(panel=panels)
@pytest.mark.parametrize("rule", [Majority(), Unanimous(), DawidSkene(rounds=20)])
def test_verdicts_are_symmetric_in_the_pictures_and_blind_to_the_seats(rule, panel):
    said = rule.verdicts(panel)
    exchanged = rule.verdicts(np.array([B, A, TIE, NOTHING], dtype=np.int8)[panel])
    reseated = rule.verdicts(panel[:, ::-1].copy())
    clear = said.agreement > 0.5 + 1e-9
    assert (np.array([B, A, TIE])[said.choice] == exchanged.choice)[clear].all()
    assert (said.choice == reseated.choice)[clear].all()
    assert said.counts.sum(1).tolist() == [panel.shape[1]] * len(panel)
    assert ((said.agreement >= 0) & (said.agreement <= 1 + 1e-12)).all()


@given(panel=panels)
def test_what_is_unanimous_is_also_the_majority(panel):
    united, most = Unanimous().verdicts(panel), Majority().verdicts(panel)
    decided = united.choice != TIE
    assert (united.choice == most.choice)[decided].all()
