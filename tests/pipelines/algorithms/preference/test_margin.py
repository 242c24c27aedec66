"""Margins are a coefficient times a gap: the arena's, a constant one, or a reward model's difference."""

import pytest

from infra.config import ConfigError
from pipelines.algorithms.preference.margin import Margin
from support.pair_batches import from_noise

GAP = [0.0, 0.5, 4.0]


def margins(scale, source, **columns):
    return Margin(scale=scale, gap=source).margins(from_noise(**({"gap": GAP} | columns))).tolist()


def test_an_arena_margin_is_in_proportion_to_the_gap():
    assert margins(0.5, "arena") == [0.0, 0.25, 2.0]


def test_a_fixed_margin_is_a_gap_on_the_arenas_scale_and_not_a_logit():
    """Table 5 of ArenaPO replaces the gap by 2.0: with c = 0.1 the margin is 0.2 for every pair."""
    assert margins(0.1, 2.0) == pytest.approx([0.2] * 3)
    assert margins(0.1, 2.0) == pytest.approx(margins(0.1, "arena", gap=[2.0] * 3))


def test_a_reward_margin_is_the_winners_lead_in_reward_and_never_below_zero():
    rewards = {"reward_winner": [1.0, 0.0, 2.0], "reward_loser": [-1.0, 3.0, 2.0]}
    assert margins(0.5, "reward", **rewards) == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("gap", ["arena", "reward", 3.0])
def test_a_scale_of_zero_is_no_margin_whatever_the_gap(gap):
    assert margins(0.0, gap, gap=[float("nan"), 1.0, 2.0]) == [0.0] * 3


def test_a_pair_whose_gap_is_not_known_has_no_margin():
    assert margins(0.5, "arena", gap=[float("nan"), 1.0, 2.0]) == [0.0, 0.5, 1.0]


@pytest.mark.parametrize("options", [{"scale": -1.0}, {"gap": -0.5}, {"gap": float("inf")}, {"gap": "elo"}])
def test_a_margin_that_is_none_is_refused(options):
    with pytest.raises(ConfigError, match="Margin: " + next(iter(options))):
        Margin(**options)
