"""Bradley-Terry strengths against closed forms, an independent implementation, and the truth of a simulation."""

import math

import choix
import numpy as np
import pytest

from infra.config import ConfigError
from pipelines.algorithms.rating.bradley_terry import BradleyTerryRating, fit, fit_with_intervals
from pipelines.algorithms.rating.counts import Counts, count


def table(wins, ties=None):
    wins = np.array(wins)
    return Counts(wins=wins, ties=np.zeros_like(wins) if ties is None else np.array(ties))


def simulated(strength, *, games, seed, nu=0.0):
    generator = np.random.default_rng(seed)
    first, second, choice = [], [], []
    for _ in range(games):
        a, b = generator.choice(len(strength), 2, replace=False).tolist()
        weights = np.exp([strength[a], strength[b], (strength[a] + strength[b]) / 2])
        weights[2] *= nu
        first.append(a)
        second.append(b)
        choice.append(str(generator.choice(["a", "b", "tie"], p=weights / weights.sum())))
    return {"first": first, "second": second, "choice": choice, "players": len(strength)}


def counted(games):
    return count(games["first"], second=games["second"], choice=games["choice"], players=games["players"])


def intervals(games, prompts, *, seed=0, **options):
    first, rest = games["first"], {name: games[name] for name in ("second", "choice", "players")}
    generator = np.random.default_rng(seed)
    return fit_with_intervals(first, **rest, prompt=prompts, options=BradleyTerryRating(**options), generator=generator)


def test_two_players_differ_by_the_log_odds_of_their_games():
    strength = fit(table([[0, 30], [10, 0]]), options=BradleyTerryRating(prior=0.0)).strength
    assert strength[0] - strength[1] == pytest.approx(math.log(3))
    assert strength.sum() == pytest.approx(0)


def test_a_tie_is_half_a_win_of_each():
    ties = fit(table([[0, 20], [0, 0]], [[0, 20], [20, 0]]), options=BradleyTerryRating(prior=0.0)).strength
    wins = fit(table([[0, 30], [10, 0]]), options=BradleyTerryRating(prior=0.0)).strength
    assert ties == pytest.approx(wins)


def test_davidson_gives_the_shares_of_two_players_exactly():
    fitted = fit(table([[0, 40], [10, 0]], [[0, 30], [30, 0]]), options=BradleyTerryRating(prior=0.0, ties="davidson"))
    assert fitted.strength[0] - fitted.strength[1] == pytest.approx(math.log(4), rel=1e-5)
    assert fitted.tie_weight == pytest.approx(30 / math.sqrt(40 * 10), rel=1e-5)


def test_strengths_equal_those_of_choix():
    counts = counted(simulated([-1.0, -0.2, 0.3, 0.9], games=400, seed=0))
    games = [(i, j) for i in range(4) for j in range(4) for _ in range(counts.wins[i, j])]
    for penalty in (0.0, 0.05):  # choix: penalty |s|^2; here: prior / 2 |s|^2
        theirs = choix.opt_pairwise(4, games, alpha=penalty, tol=1e-12)
        ours = fit(counts, options=BradleyTerryRating(prior=2 * penalty)).strength
        assert ours == pytest.approx(theirs - theirs.mean(), abs=1e-5)


@pytest.mark.parametrize(("ties", "nu"), [("half", 0.0), ("davidson", 0.7)])
def test_the_truth_of_a_simulation_is_found(ties, nu):
    truth = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
    fitted = fit(counted(simulated(truth, games=20_000, seed=1, nu=nu)), options=BradleyTerryRating(ties=ties))
    assert fitted.strength == pytest.approx(truth, abs=0.08)
    if ties == "davidson":
        assert fitted.tie_weight == pytest.approx(nu, abs=0.05)


def test_the_intervals_hold_the_truth_about_as_often_as_they_say():
    truth = np.array([-0.6, 0.0, 0.6])
    held = []
    for seed in range(16):
        games = simulated(truth, games=150, seed=seed)
        found = intervals(games, [str(n) for n in range(150)], seed=seed, resamples=60)
        held += ((found.low <= truth) & (truth <= found.high)).tolist()
        assert ((found.low <= found.strength) & (found.strength <= found.high)).all()
    assert 0.8 <= np.mean(held) <= 1.0


def test_who_wins_everything_is_finite_with_a_prior_and_refused_without():
    always = table([[0, 50], [0, 0]])
    strength = fit(always, options=BradleyTerryRating()).strength
    assert np.isfinite(strength).all() and strength[0] > strength[1]
    with pytest.raises(ConfigError, match="prior above 0"):
        fit(always, options=BradleyTerryRating(prior=0.0))


@pytest.mark.parametrize("ties", ["half", "davidson"])
def test_millions_of_lopsided_votes_converge(ties):
    wins = np.array([[0, 3_000_000, 900_000], [5, 0, 400_000], [1, 2, 0]])
    strength = fit(table(wins), options=BradleyTerryRating(ties=ties)).strength
    assert strength[0] > strength[1] > strength[2]
    assert strength[0] - strength[1] == pytest.approx(math.log(3_000_000 / 5), abs=0.5)


def test_without_votes_all_are_equal_and_an_interval_is_refused():
    nothing = table([[0, 0], [0, 0]])
    assert fit(nothing, options=BradleyTerryRating()).strength.tolist() == [0.0, 0.0]
    with pytest.raises(ConfigError, match="needs votes"):
        intervals({"first": [], "second": [], "choice": [], "players": 2}, [])


def test_votes_repeated_on_the_same_prompts_make_no_interval_narrower():
    """A prompt's votes agree (they are of the same pictures): four times each says no more than once each."""
    games = simulated(np.array([-0.6, 0.0, 0.6]), games=150, seed=1)
    prompts = [f"prompt{n}" for n in range(150)]
    often = {name: value * 4 if isinstance(value, list) else value for name, value in games.items()}
    once, repeated, apart = (
        intervals(games, prompts, prior=0.0),
        intervals(often, prompts * 4, prior=0.0),
        intervals(often, [str(n) for n in range(600)], prior=0.0),
    )
    widths = [found.high - found.low for found in (once, repeated, apart)]
    assert widths[1] == pytest.approx(widths[0], rel=1e-6)
    assert (widths[2] < 0.65 * widths[0]).all()
