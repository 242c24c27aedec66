"""Gaussian ratings against the reference implementation of TrueSkill, and their laws."""

import math

import numpy as np
import pytest
import trueskill
from hypothesis import given
from hypothesis import strategies as st

from infra.config import ConfigError
from pipelines.algorithms.rating.gaussian import GaussianRating, rate

UNUSED = np.random.default_rng(0)


def play(games, *, players, generator=UNUSED, **options):
    first, second, choice = ([game[place] for game in games] for place in range(3))
    return rate(
        first,
        second=second,
        choice=choice,
        players=players,
        options=GaussianRating(**{"orders": 1} | options),
        generator=generator,
    )


def random_games(count, *, players, seed, ties=0.2):
    generator = np.random.default_rng(seed)
    skill = np.linspace(-1, 1, players)
    games = []
    for _ in range(count):
        a, b = generator.choice(players, 2, replace=False).tolist()
        lead = skill[a] - skill[b] + generator.normal()
        games.append((a, b, "tie" if generator.random() < ties else "a" if lead > 0 else "b"))
    return games


@pytest.mark.parametrize("tau", [25 / 300, 0.0])
def test_ratings_equal_those_of_the_trueskill_library(tau):
    games = random_games(600, players=5, seed=1)
    ours = play(games, players=5, tau=tau)
    reference = trueskill.TrueSkill(tau=tau, draw_probability=0.10)
    theirs = [reference.create_rating() for _ in range(5)]
    for a, b, choice in games:
        if choice == "b":
            theirs[b], theirs[a] = trueskill.rate_1vs1(theirs[b], theirs[a], env=reference)
        else:
            drawn = choice == "tie"
            theirs[a], theirs[b] = trueskill.rate_1vs1(theirs[a], theirs[b], drawn=drawn, env=reference)
    assert ours.mu == pytest.approx([rating.mu for rating in theirs], abs=1e-6)
    assert ours.sigma == pytest.approx([rating.sigma for rating in theirs], abs=1e-6)


def test_the_first_game_moves_both_players_as_published():
    one = play([(0, 1, "a")], players=2)
    assert one.mu == pytest.approx([29.396, 20.604], abs=1e-3)
    assert one.sigma == pytest.approx([7.171, 7.171], abs=1e-3)


def test_a_tie_of_equals_moves_nobody_and_makes_both_surer():
    tied = play([(0, 1, "tie")], players=2)
    assert tied.mu == [25.0, 25.0]
    assert tied.sigma[0] == tied.sigma[1] < 25 / 3


def test_exchanging_the_seats_changes_nothing():
    games = random_games(200, players=4, seed=2)
    swapped = [(b, a, {"a": "b", "b": "a", "tie": "tie"}[choice]) for a, b, choice in games]
    there, back = play(games, players=4), play(swapped, players=4)
    assert there.mu == pytest.approx(back.mu, abs=1e-12)
    assert there.sigma == pytest.approx(back.sigma, abs=1e-12)


@given(lead=st.floats(-1e5, 1e5), choice=st.sampled_from(["a", "b", "tie"]), beta=st.floats(0.01, 10))
def test_the_most_surprising_outcome_keeps_ratings_finite_and_variances_positive(lead, choice, beta):
    opening = [(0, 1, "a" if lead > 0 else "b")] * 300
    strengths = play([*opening, (0, 1, choice)], players=2, beta=beta, sigma=1 + abs(lead) / 100)
    assert all(math.isfinite(value) for value in strengths.mu)
    assert all(math.isfinite(value) and value > 0 for value in strengths.sigma)


def test_with_tau_uncertainty_settles_near_the_published_level_and_without_it_vanishes():
    games = random_games(60_000, players=16, seed=3)
    settled = play(games, players=16)
    assert all(0.7 < sigma < 1.0 for sigma in settled.sigma)  # ArenaPO's tables: 0.77 to 0.90
    assert max(play(games, players=16, tau=0.0).sigma) < 0.15


def test_stronger_players_end_higher():
    mu = play(random_games(20_000, players=6, seed=4), players=6).mu
    assert mu == sorted(mu)


def test_averaging_over_orders_takes_out_the_order():
    games = random_games(3000, players=4, seed=5)
    shuffled = [games[place] for place in np.random.default_rng(9).permutation(len(games))]
    once = [play(order, players=4, tau=0.0).mu for order in (games, shuffled)]
    often = [
        play(order, players=4, tau=0.0, orders=16, average=True, generator=np.random.default_rng(7)).mu
        for order in (games, shuffled)
    ]
    assert np.abs(np.subtract(*often)).max() < np.abs(np.subtract(*once)).max()


def test_the_same_generator_gives_the_same_average():
    games = random_games(300, players=3, seed=6)
    runs = [play(games, players=3, tau=0.0, orders=4, average=True, generator=np.random.default_rng(1)) for _ in range(2)]
    assert runs[0] == runs[1]
    assert all(spread > 0 for spread in runs[0].spread)


def test_the_score_is_three_sigma_below_the_mean():
    strengths = play([(0, 1, "a")], players=2)
    assert strengths.scores()[0] == strengths.mu[0] - 3 * strengths.sigma[0]


def test_averaging_what_is_forgotten_is_refused():
    with pytest.raises(ConfigError, match="tau to 0"):
        play([(0, 1, "a")], players=2, average=True)


def test_the_order_of_the_games_moves_a_mean_that_forgets_by_more_than_its_rounding():
    """With tau = 25/300 a mean moves by about .6 over six orders of the same 20,000 games, without tau by a tenth of it."""
    games = random_games(20_000, players=8, seed=3)
    with_tau = play(games, players=8, orders=6)
    without = play(games, players=8, orders=6, tau=0.0)
    assert with_tau.mu == play(games, players=8).mu, "the spread alone is from shuffled orders"
    assert 0.4 < np.mean(with_tau.spread) < 0.9
    assert np.mean(without.spread) < 0.1 * np.mean(with_tau.spread)


@pytest.mark.parametrize("rare", [False, True])
def test_the_spread_is_that_of_whole_orders_although_only_their_last_games_are_played(rare):
    """A player with ten games in all is no exception: then all games are played."""
    games = random_games(24_000, players=4, seed=8)
    if rare:
        games = [game for game in games if 3 not in game[:2]]
        games[:10] = [(0, 3, "a")] * 10
    rated = play(games, players=4, orders=4, generator=np.random.default_rng(7))
    generator = np.random.default_rng(7)
    orders = [games] + [[games[place] for place in generator.permutation(len(games))] for _ in range(3)]
    mus = np.array([play(order, players=4).mu for order in orders])
    whole = (mus - mus.mean(axis=1, keepdims=True)).std(axis=0, ddof=1)
    assert rated.spread == pytest.approx(whole.tolist(), abs=1e-8)


def test_one_order_says_nothing_of_the_spread():
    assert play([(0, 1, "a")], players=2).spread == [None, None]


def test_without_a_width_of_ties_the_update_is_arenapos_own_formula():
    """c^2 = 2 beta^2 + 2 sigma^2, v = pdf(0) / cdf(0), w = v^2: no draw margin, no tau."""
    one = play([(0, 1, "a")], players=2, draw_probability=0.0, tau=0.0)
    total = 2 * (25 / 6) ** 2 + 2 * (25 / 3) ** 2
    v = math.sqrt(2 / math.pi)
    assert one.mu[0] == pytest.approx(25 + (25 / 3) ** 2 / math.sqrt(total) * v) == pytest.approx(29.205221, abs=1e-6)
    assert one.sigma[0] == pytest.approx(25 / 3 * math.sqrt(1 - (25 / 3) ** 2 / total * v * v)) == pytest.approx(7.194481)


def test_ties_without_a_width_of_ties_are_refused_with_their_number():
    with pytest.raises(ConfigError, match="2 of 3 games are ties"):
        play([(0, 1, "tie"), (0, 1, "a"), (1, 0, "tie")], players=2, draw_probability=0.0)


def test_an_arena_of_one_is_refused():
    with pytest.raises(ConfigError, match="add one to the roster"):
        play([], players=1)
