"""The laboratory: verdicts, intervals over captions and seeds, label noise, trivial pairs, and what its page escapes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from infra.config import ConfigError
from infra.identity import key_of
from pipelines.algorithms.metrics.crossed import crossed_interval
from pipelines.algorithms.preference.flow_dpo import FlowDPO
from pipelines.algorithms.preference.polynomial import AutoAlpha
from pipelines.algorithms.preference.rwr import RWR
from pipelines.algorithms.preference.sft import SFT
from pipelines.laboratory.claims import FAILS, HOLDS, OPEN, TrialsBySeed, judge, verdict
from pipelines.laboratory.contenders import BASE, Claim, Contender, Phase, check_budgets
from pipelines.laboratory.data import conflicting, flipped, noisy, trivial
from pipelines.laboratory.page import LabReport, Sizes, markdown, page
from pipelines.laboratory.rows import MEASURES, ClaimVerdict, Trial
from pipelines.laboratory.trial import best
from pipelines.laboratory.trials import passes

PAIRS = [f"pair{number:05d}" for number in range(4000)]


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def trial(contender: str, strict: list[float], *, noise: float = 0.0, seed: int = 1, diverged: str = "") -> Trial:
    shape = {"steps": 3, "tried": [0.5], "failed": 0, "candidate": 0, "settings": "[]", "pairs": 5}
    scores = dict.fromkeys(MEASURES, strict)
    return Trial("id", contender, noise, seed, **shape, diverged=diverged, implicit_accuracy=None, **scores)


def table(pairs: int, *, prompts: int = 5) -> pa.Table:
    rows = [
        {
            "id": f"pair{n:03d}",
            "prompt_id": f"prompt{n % prompts}",
            "winner": f"w{n}",
            "loser": f"l{n}",
            "generator_winner": "strong",
            "generator_loser": "weak",
            "tie": n % 4 == 0,
            "gap": 1.0,
            "reward_winner": 0.5,
            "reward_loser": -0.5,
        }
        for n in range(pairs)
    ]
    return pa.Table.from_pylist(rows)


def test_a_claim_holds_only_where_its_whole_interval_lies_above_zero():
    assert [verdict(0.01, 0.2), verdict(-0.2, -0.01), verdict(-0.1, 0.1)] == [HOLDS, FAILS, OPEN]
    assert verdict(0.0, 0.1) == verdict(-0.1, 0.0) == verdict(0.0, 0.0) == OPEN


def test_a_claim_of_equality_holds_only_where_the_whole_interval_is_small():
    found = [
        verdict(low, high, within=0.01) for low, high in ((-0.009, 0.009), (0.02, 0.03), (-0.03, -0.02), (-0.02, 0.002))
    ]
    assert found == [HOLDS, FAILS, FAILS, OPEN]
    assert verdict(0.001, 0.005, within=0.01) == HOLDS, "a small difference that is certain is still small"


def test_labels_in_conflict_are_the_word_of_one_dimension_and_a_share_of_the_pairs():
    clean = table(2000)
    tastes = {
        name: (float(name[0] == "w"), float(name[0] == "l")) for name in [f"{s}{n}" for s in "wl" for n in range(2000)]
    }
    turned = conflicting(clean, noise=0.4, seed=3, tastes=tastes)
    decided = [row for row in turned.to_pylist() if not row["tie"]]
    share = np.mean([row["winner"][0] == "l" for row in decided])
    assert share == pytest.approx(0.4 / 2, abs=0.03), "one of the two dimensions agrees with every label"
    assert conflicting(clean, noise=0.0, seed=3, tastes=tastes).equals(clean)
    agreeing = {name: (float(name[0] == "w"),) for name in tastes}
    assert conflicting(clean, noise=0.4, seed=3, tastes=agreeing).equals(clean)


def test_what_a_table_calls_a_contender_is_part_of_what_it_is():
    one = Contender(name="x", title="a", noises=(0.0,), candidates=((Phase(method=SFT(), learning_rate=1e-3),),))
    assert key_of(one) != key_of(one.model_copy(update={"title": "b"}))


def test_exchanging_both_sides_exchanges_holds_and_does_not_hold():
    good, bad = [1.0] * 30, [0.0] * 30
    sides = {
        (name, 0.0): TrialsBySeed((1, 2), (trial(name, s), trial(name, s, seed=2))) for name, s in (("x", good), ("y", bad))
    }

    def of(better: str, worse: str) -> ClaimVerdict:
        claim = Claim(name="c", statement="c", better=better, worse=worse, noises=(0.0,))
        return judge(claim, sides, noise=0.0, measure="strict")

    one, other = of("x", "y"), of("y", "x")
    assert (one.verdict, other.verdict) == (HOLDS, FAILS)
    assert (one.difference, one.low, one.high) == (1.0, 1.0, 1.0) and other.difference == -1.0


def test_the_base_stands_against_every_seed_and_a_diverged_run_counts_as_wrong():
    runs = {
        (BASE, 0.0): TrialsBySeed((0,), (trial(BASE, [1.0, 0.0], seed=0),)),
        ("x", 0.3): TrialsBySeed((1, 2), (trial("x", [1.0, 1.0]), trial("x", [0.0, 0.0], seed=2, diverged="no number"))),
    }
    claim = Claim(name="c", statement="c", better="x", worse=BASE, noises=(0.3,))
    found = judge(claim, runs, noise=0.3, measure="strict")
    assert (found.better_mean, found.worse_mean, found.difference) == (0.5, 0.5, 0.0)
    assert (found.seeds, found.captions, found.diverged) == (2, 2, 1)


def test_only_seeds_that_both_have_are_compared():
    runs = {
        ("x", 0.0): TrialsBySeed((1, 2), (trial("x", [1.0, 1.0]), trial("x", [0.0, 0.0], seed=2))),
        ("y", 0.0): TrialsBySeed((1,), (trial("y", [1.0, 0.0]),)),
    }
    claim = Claim(name="c", statement="c", better="x", worse="y", noises=(0.0,))
    found = judge(claim, runs, noise=0.0, measure="strict")
    assert (found.seeds, found.better_mean, found.difference) == (1, 1.0, 0.5)


def test_one_seed_gives_the_t_interval_over_captions_alone():
    values = random(3).normal(size=60)
    crossed = crossed_interval(values[None])
    plain = stats.t.interval(0.95, 59, loc=values.mean(), scale=values.std(ddof=1) / np.sqrt(60))
    assert (crossed.low, crossed.high) == pytest.approx(plain)


def test_where_captions_agree_it_is_the_t_interval_over_seeds_and_the_other_way_round():
    of_one = np.array([0.1, 0.2, 0.4])
    plain = stats.t.interval(0.95, 2, loc=of_one.mean(), scale=of_one.std(ddof=1) / np.sqrt(3))
    for values in (np.repeat(of_one[:, None], 50, axis=1), np.repeat(of_one[None], 50, axis=0)):
        found = crossed_interval(values)
        assert (found.low, found.high) == pytest.approx(plain)


def test_cells_that_are_all_equal_have_no_spread():
    found = crossed_interval(np.full((3, 4), 0.25))
    assert (found.low, found.estimate, found.high, found.n) == (0.25, 0.25, 0.25, 12)


@pytest.mark.parametrize(
    ("of_seed", "of_caption", "own"), [(0.05, 0.3, 0.3), (0.3, 0.3, 0.3), (0.0, 0.3, 0.3), (0.05, 0.0, 1.0)]
)
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_an_interval_over_captions_and_seeds_covers_the_truth_as_often_as_it_says(seeds, of_seed, of_caption, own):
    """95 % of 1,000 worlds have a standard error of 0.7 %; where cells are noisy it is cautious."""
    draw, covered = random(seeds), 0
    for _ in range(1000):
        values = 0.1 + draw.normal(size=(seeds, 1)) * of_seed + draw.normal(size=(1, 40)) * of_caption
        found = crossed_interval(values + draw.normal(size=(seeds, 40)) * own)
        covered += found.low <= 0.1 <= found.high
    assert covered >= 930


def test_an_empty_or_broken_table_of_scores_is_refused():
    with pytest.raises(ConfigError, match="seeds x captions"):
        crossed_interval(np.empty((0, 3)))
    with pytest.raises(ConfigError, match="not finite"):
        crossed_interval(np.array([[np.nan]]))


@given(noise=st.floats(0, 0.49), more=st.floats(0, 0.49), seed=st.integers(0, 5))
def test_flips_are_nested_in_the_noise(noise, more, seed):
    low, high = sorted((noise, more))
    assert all(flipped(p, noise=high, seed=seed) for p in PAIRS[:200] if flipped(p, noise=low, seed=seed))


def test_the_share_of_flips_is_the_noise_and_other_seeds_flip_others():
    shares = [np.mean([flipped(p, noise=0.3, seed=s) for p in PAIRS]) for s in (1, 2)]
    assert shares == pytest.approx([0.3, 0.3], abs=0.03)
    both = np.mean([flipped(p, noise=0.3, seed=1) and flipped(p, noise=0.3, seed=2) for p in PAIRS])
    assert both == pytest.approx(0.09, abs=0.02)


def test_noise_exchanges_winner_and_loser_of_flipped_pairs_and_nothing_else():
    clean = table(200)
    dirty = noisy(clean, noise=0.4, seed=3)
    for before, after in zip(clean.to_pylist(), dirty.to_pylist(), strict=True):
        turned = not before["tie"] and flipped(before["id"], noise=0.4, seed=3)
        pictures = (before["winner"], before["loser"])
        assert (after["winner"], after["loser"]) == (pictures[::-1] if turned else pictures)
        assert after["generator_winner"] == ("weak" if turned else "strong")
        assert after["reward_winner"] > after["reward_loser"]
    assert noisy(clean, noise=0.0, seed=3).equals(clean)
    assert dirty["winner"].to_pylist() != clean["winner"].to_pylist()


def test_trivial_pairs_have_every_loser_once_and_never_one_of_their_own_prompt():
    clean = table(60)
    made = trivial(clean, seed=1).to_pylist()
    prompt_of = {row["loser"]: row["prompt_id"] for row in clean.to_pylist()}
    assert all(not row["tie"] and prompt_of[row["loser"]] != row["prompt_id"] and row["gap"] is None for row in made)
    assert trivial(clean, seed=1).equals(trivial(clean, seed=1)) and len(made) == 45
    with pytest.raises(ConfigError, match="two prompts"):
        trivial(table(8, prompts=1), seed=1)


@pytest.mark.parametrize(
    ("tried", "chosen"),
    [
        ([(0.5, 0.6, 0.5), (0.5, 0.6, 0.6)], 1),
        ([(0.5, 0.7, 0.1), (0.5, 0.6, 0.9)], 0),
        ([(0.0, 0.9, 0.9), (0.5, 0.1, 0.1)], 1),
        ([(0.5, 0.1, 0.1), (0.5, 0.1, 0.1)], 0),
    ],
)
def test_the_tuning_captions_choose_by_strict_score_then_partial_then_quality_then_the_first(tried, chosen):
    assert best([dict(zip(MEASURES, ([value, value] for value in scores), strict=True)) for scores in tried]) == chosen


def test_unequal_tuning_budgets_are_refused():
    phase = (Phase(method=SFT(), learning_rate=1e-4),)
    one = Contender(name="one", title="", noises=(0.0,), candidates=(phase, phase))
    two = Contender(name="two", title="", noises=(0.0,), candidates=(phase,))
    assert check_budgets((one,)) == 2
    with pytest.raises(ConfigError, match="two tries 1 settings, one 2"):
        check_budgets((one, two))
    with pytest.raises(ConfigError, match="add up to 1"):
        Contender(name="x", title="", noises=(), candidates=((phase[0], phase[0]),))


def test_a_step_costs_what_its_passes_do():
    """Forward 1 a member and model, backward 2: SFT learns from one member, an automatic alpha looks at all twice."""
    methods = (SFT(), RWR(), FlowDPO(), FlowDPO(polynomial=AutoAlpha()))
    assert [passes(method) for method in methods] == [4, 6, 8, 12]


def test_foreign_words_are_escaped_on_the_page():
    evil = "<script>alert(1)</script> | *x*"
    row = ClaimVerdict("c", evil, evil, evil, 0.0, "strict", 0.5, 0.4, 0.1, -0.1, 0.3, OPEN, 10, 2, 0)
    sizes = Sizes(10, 6, 10, 1, 2, 3, 4)
    data = LabReport([row], [], [], [("c", evil)], sizes, {}, "0" * 24)
    assert "<script" not in page(data) and "<script" not in markdown(data) and "\\| \\*x\\*" in markdown(data)
    assert "one training seed only" in page(data) and "undecided" in page(data)
