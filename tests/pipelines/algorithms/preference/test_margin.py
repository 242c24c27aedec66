"""Margins: none, fixed, and in proportion to the arena's gap."""

import pytest
import torch

from infra.config import ConfigError
from pipelines.algorithms.preference.margin import ArenaMargin, FixedMargin, NoMargin

GAP = torch.tensor([0.0, 0.5, 4.0])


def test_an_arena_margin_is_in_proportion_to_the_gap():
    assert ArenaMargin(scale=0.5).margins(GAP).tolist() == [0.0, 0.25, 2.0]


def test_an_arena_margin_of_scale_zero_is_no_margin():
    assert torch.equal(ArenaMargin(scale=0.0).margins(GAP), NoMargin().margins(GAP))


def test_a_fixed_margin_ignores_the_gap():
    assert FixedMargin(value=0.3).margins(GAP).tolist() == pytest.approx([0.3] * 3)


def test_a_negative_margin_is_refused():
    with pytest.raises(ConfigError, match="FixedMargin"):
        FixedMargin(value=-1.0)
