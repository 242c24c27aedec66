"""Advantages: centred in their group, scaled by the std that the options name, and silent about what is unknown."""

import math

import pytest
import torch

from pipelines.algorithms.online.advantage import GroupAdvantage

REWARDS = torch.tensor([[1.0, 2.0, 3.0, 6.0], [10.0, 10.5, 11.0, 11.5]])


@pytest.mark.parametrize("ddof", [0, 1])
def test_advantages_have_mean_0_and_the_std_that_ddof_names(ddof):
    found = GroupAdvantage(ddof=ddof, eps=0.0).of(REWARDS)
    torch.testing.assert_close(found.values.mean(1), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.values.std(1, correction=ddof), torch.ones(2))


def test_over_the_round_all_groups_share_one_scale():
    found = GroupAdvantage(over="round", eps=0.0).of(REWARDS)
    expected = (REWARDS - REWARDS.mean(1, keepdim=True)) / REWARDS.std(correction=0)
    torch.testing.assert_close(found.values, expected)


def test_equal_rewards_teach_nothing_even_where_their_mean_is_rounded():
    found = GroupAdvantage().of(torch.tensor([[0.1, 0.1, 0.1], [0.1, 0.2, 0.3]]))
    assert found.used.tolist() == [False, True]
    assert not found.values[0].any()
    assert found.dropped == 0.5


def test_an_unknown_reward_is_left_out_of_its_group():
    found = GroupAdvantage(eps=0.0).of(torch.tensor([[1.0, math.nan, 3.0], [math.nan, math.nan, 2.0]]))
    assert found.values[0].tolist() == [-1.0, 0.0, 1.0]
    assert found.used.tolist() == [True, False]
    assert not found.values[1].any()


def test_advantages_are_clipped():
    rewards = torch.zeros(1, 100)
    rewards[0, 0] = 1.0
    assert float(GroupAdvantage(clip=5.0).of(rewards).values.max()) == 5.0
    assert float(GroupAdvantage(clip=None).of(rewards).values.max()) > 9.0


def test_a_group_that_hardly_differs_is_dropped_by_its_share_of_the_typical_spread():
    rewards = torch.tensor([[0.0, 1.0], [0.0, 0.01]])
    found = GroupAdvantage(min_spread=0.1).of(rewards, typical=torch.tensor([0.5, 0.5]))
    assert found.used.tolist() == [True, False]
