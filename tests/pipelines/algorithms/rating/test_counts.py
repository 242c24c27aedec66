"""Counting of games loses nothing and keeps the seats apart."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.config import ConfigError
from pipelines.algorithms.rating.counts import count

pairs = st.tuples(st.integers(0, 4), st.integers(0, 4)).filter(lambda pair: pair[0] != pair[1])
games = st.lists(st.tuples(pairs, st.sampled_from(["a", "b", "tie"])), max_size=40)


def counted(games, *, players=5):
    return count(
        [pair[0] for pair, _ in games],
        second=[pair[1] for pair, _ in games],
        choice=[choice for _, choice in games],
        players=players,
    )


@given(games=games)
def test_every_game_is_a_win_or_a_tie_once(games):
    counts = counted(games)
    assert counts.wins.sum() + counts.ties.sum() // 2 == len(games)
    assert (counts.ties == counts.ties.T).all()
    assert counts.won.sum() == counts.lost.sum()


def test_a_win_of_the_second_seat_is_counted_for_it():
    counts = counted([((0, 3), "b"), ((3, 0), "a"), ((0, 3), "tie")])
    assert counts.wins[3, 0] == 2 and counts.wins[0, 3] == 0
    assert counts.tied.tolist() == [1, 0, 0, 1, 0]


def test_unreadable_outcomes_and_games_against_oneself_are_refused():
    with pytest.raises(ConfigError, match="unparsable"):
        count([0], second=[1], choice=["unparsable"], players=2)
    with pytest.raises(ConfigError, match="against itself"):
        count([1], second=[1], choice=["a"], players=2)
