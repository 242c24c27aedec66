"""Which steps of a rollout are stochastic."""

import pytest

from infra.config import ConfigError
from pipelines.algorithms.online.windows import EveryStep, LastSteps, NoSteps, SlidingSteps, SpreadSteps, random_share


def test_tapos_steps_are_the_papers():
    assert SpreadSteps(count=8, first=0).steps(20) == (0, 2, 5, 7, 10, 12, 15, 17)
    assert SpreadSteps(count=8).steps(20) == (1, 3, 6, 8, 11, 13, 16, 18)
    assert SpreadSteps(count=16, first=0).steps(20) == (0, 1, 2, 3, 5, 6, 7, 8, 10, 11, 12, 13, 15, 16, 17, 18)


def test_a_window_that_reaches_the_last_step_is_refused():
    with pytest.raises(ConfigError, match="stay in the picture"):
        SpreadSteps(count=16, first=1).steps(20)
    for window in (LastSteps(count=10), EveryStep(first=9), SlidingSteps(size=10), SpreadSteps(count=21)):
        with pytest.raises(ConfigError, match="do not fit 10"):
            window.steps(10)


def test_every_step_but_the_last_and_the_last_ones():
    assert EveryStep().steps(5) == (0, 1, 2, 3)
    assert EveryStep(first=2).steps(5) == (2, 3)
    assert LastSteps(count=2).steps(5) == (2, 3)
    assert NoSteps().steps(5) == ()


def test_a_sliding_window_moves_with_the_rounds_and_begins_again():
    window = SlidingSteps(size=2, rounds=10, stride=2)
    assert [window.steps(8, number=number) for number in (0, 9, 10, 20, 30)] == [(0, 1), (0, 1), (2, 3), (4, 5), (0, 1)]


def test_a_random_share_is_fixed_by_its_seed():
    steps = range(15)
    assert random_share(steps, share=0.6, seed=4) == random_share(steps, share=0.6, seed=4)
    assert len(random_share(steps, share=0.6, seed=4)) == 9
    assert random_share([3], share=0.6, seed=4) == (3,)
