"""Labels believed fully, as probabilities, or as weights."""

import pytest
import torch

from infra.config import ConfigError
from pipelines.algorithms.preference.confidence import HardLabels, SoftLabels, WeightedLabels

DIRECT, EXCHANGED = torch.tensor([1.0, 1.0, 1.0, 1.0]), torch.tensor([5.0, 5.0, 5.0, 5.0])
PROBABILITY = torch.tensor([0.25, 0.5, 0.75, 1.0])


def losses(rule):
    return rule.losses(lambda: DIRECT, exchanged=lambda: EXCHANGED, probability=PROBABILITY).tolist()


def test_hard_labels_ignore_the_probability():
    assert losses(HardLabels()) == [1.0] * 4


def test_soft_labels_mix_both_orders_and_never_turn_a_label_round():
    assert losses(SoftLabels()) == [3.0, 3.0, 2.0, 1.0]


def test_a_weight_by_the_lead_drops_what_has_an_even_chance():
    assert losses(WeightedLabels()) == [0.0, 0.0, 0.5, 1.0]


def test_a_weight_by_the_probability_is_the_probability():
    assert losses(WeightedLabels(by="probability")) == [0.25, 0.5, 0.75, 1.0]


def test_an_unknown_weight_is_refused():
    with pytest.raises(ConfigError, match="WeightedLabels"):
        WeightedLabels(by="votes")
