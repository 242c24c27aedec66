"""Which candidate goes on, and which pair is learnt from."""

import math

import pytest
import torch

from infra.config import ConfigError
from pipelines.algorithms.online.keep import FixedThreshold, NoiseThreshold, candidate_pairs, kept

SCORES = torch.tensor([[1.0, 3.0, 2.0], [math.nan, -1.0, 0.0], [math.nan, math.nan, math.nan]])
HALF = torch.full((3,), 0.5)


def test_unknown_scores_are_neither_best_nor_worst():
    assert kept(SCORES, rule="best", uniform=HALF).tolist() == [1, 2, 0]
    assert kept(SCORES, rule="worst", uniform=HALF).tolist() == [0, 1, 0]
    assert kept(SCORES, rule="first", uniform=HALF).tolist() == [0, 0, 0]
    assert kept(SCORES, rule="random", uniform=torch.tensor([0.0, 0.5, 0.999])).tolist() == [0, 1, 2]


def test_a_pair_is_used_where_the_softmax_of_its_scores_leads_by_more_than_the_threshold():
    gap = 2 * math.atanh(0.3)
    scores = torch.tensor([[0.0, gap * 1.01], [0.0, gap * 0.99], [1.0, 1.0], [math.nan, 1.0]])
    level = torch.ones(4)
    pairs = candidate_pairs(scores, threshold=FixedThreshold(value=0.3).at(level, low=0.0, high=1.0))
    assert pairs.used.tolist() == [True, False, False, False]
    both = torch.softmax(scores[:1, [1, 0]], dim=1)[0]
    assert float(pairs.lead[0]) == pytest.approx(float(both[0] - both[1]))
    assert not candidate_pairs(scores[2:3], threshold=torch.zeros(1)).used.any()  # equals are no pair


def test_lpos_threshold_is_linear_in_the_noise_level():
    threshold = NoiseThreshold(lowest=0.35, highest=0.5)
    found = threshold.at(torch.tensor([0.1, 0.3, 0.5]), low=0.1, high=0.5)
    assert found.tolist() == pytest.approx([0.35, 0.425, 0.5])
    assert threshold.at(torch.tensor([0.2]), low=0.2, high=0.2).tolist() == pytest.approx([0.5])
    with pytest.raises(ConfigError, match="swap them"):
        NoiseThreshold(lowest=0.6, highest=0.5)
