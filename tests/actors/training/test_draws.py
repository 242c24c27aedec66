"""Which examples belong to a step: epochs, groups, turns, seeds."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.training.draws import Batches
from infra.identity import seed_of


def batches(groups, *, batch=4) -> Batches:
    return Batches(0, batch=batch, size=len(groups), groups=groups)


def test_an_epoch_shows_every_example_once_and_draws_have_their_own_seeds():
    one = Batches(0, batch=5, size=5, groups=None)
    first, second = one.draws(0), one.draws(1)
    assert sorted(draw.index for draw in first) == sorted(draw.index for draw in second) == list(range(5))
    assert len({draw.seed for draw in first + second}) == 10
    assert one.draws(1) == second
    assert {draw.epoch for draw in first} == {0}
    assert {draw.epoch for draw in second} == {1}


def test_one_group_is_the_shuffled_epochs_of_all_examples():
    expected = np.concatenate([np.random.default_rng(seed_of(0, "epoch", e)).permutation(7) for e in range(8)])
    for groups in (None, [3] * 7):
        found = [draw for step in range(14) for draw in Batches(0, batch=4, size=7, groups=groups).draws(step)]
        assert [draw.index for draw in found] == expected.tolist()
        assert [draw.seed for draw in found] == [seed_of(0, "draw", position) for position in range(56)]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=20), st.integers(1, 6))
def test_a_batch_is_of_one_group_and_an_epoch_counts_the_draws_before(groups, batch):
    found = batches(groups, batch=batch)
    drawn: Counter[int] = Counter()
    seeds = set()
    for step in range(3 * len(groups)):
        batch_of_step = found.draws(step)
        assert len({groups[draw.index] for draw in batch_of_step}) == 1
        for draw in batch_of_step:
            assert draw.epoch == drawn[draw.index]
            drawn[draw.index] += 1
            seeds.add(draw.seed)
    assert len(seeds) == 3 * len(groups) * batch
    # As many steps as examples, times the batch: every example has had exactly its turns.
    assert {drawn[index] for index in range(len(groups))} == {3 * batch}


@given(st.lists(st.integers(1, 30), min_size=2, max_size=5), st.integers(0, 200))
def test_turns_come_in_proportion_at_every_moment(sizes, steps):
    groups = np.repeat(np.arange(len(sizes)), sizes).tolist()
    found = batches(groups, batch=1)
    turns = Counter(groups[found.draws(step)[0].index] for step in range(steps))
    for group, size in enumerate(sizes):
        assert abs(turns[group] - steps * size / sum(sizes)) <= len(sizes) / 2


def test_any_step_may_be_asked_for_at_any_time():
    groups = [0, 1, 1, 2, 2, 2, 1]
    in_order = batches(groups)
    expected = [in_order.draws(step) for step in range(40)]
    assert [batches(groups).draws(step) for step in range(40)] == expected
    assert [in_order.draws(step) for step in reversed(range(40))] == expected[::-1]


def test_groups_that_are_not_one_an_example_are_refused():
    with pytest.raises(ValueError, match="2 groups for 3 examples"):
        Batches(0, batch=1, size=3, groups=[0, 1])
