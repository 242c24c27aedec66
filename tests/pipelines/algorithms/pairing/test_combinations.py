"""Laws of pairing: who meets whom, how many, and that only the two samples decide the sides."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from pipelines.algorithms.pairing.combinations import chosen_pairs, within_quota

SAMPLES = {f"{name}{n}": name for name, count in (("policy", 3), ("late", 1), ("early", 2)) for n in range(count)}


def met(pairs):
    return {frozenset(pair) for pair in pairs}


def test_all_combinations_by_default():
    pairs = chosen_pairs(SAMPLES)
    assert met(pairs) == {frozenset(pair) for pair in combinations(SAMPLES, 2)} and len(pairs) == 15


def test_the_focus_is_kept_whole_and_the_rest_is_limited():
    pairs = met(chosen_pairs(SAMPLES, focus=("policy", "late"), beyond=2))
    near = {name for name, generator in SAMPLES.items() if generator != "early"}
    assert {pair for pair in pairs if pair <= near} == {frozenset(pair) for pair in combinations(near, 2)}
    assert len(pairs) == 6 + 2


def test_two_samples_of_one_generator_meet_only_where_asked():
    pairs = chosen_pairs(SAMPLES, within_generator=False)
    assert len(pairs) == 3 * 1 + 3 * 2 + 1 * 2
    assert all(SAMPLES[a] != SAMPLES[b] for a, b in pairs)


@given(st.permutations(list(SAMPLES)), st.sets(st.sampled_from(sorted(SAMPLES))))
def test_a_pair_and_its_sides_depend_on_its_two_samples_alone(order, kept):
    everything = chosen_pairs({name: SAMPLES[name] for name in order})
    some = chosen_pairs({name: SAMPLES[name] for name in order if name in kept})
    assert everything == chosen_pairs(SAMPLES)
    assert some == [pair for pair in everything if set(pair) <= kept]


def test_each_side_is_as_likely_and_fewer_pairs_are_some_of_more():
    many = {f"sample {n}": "one" for n in range(100)}
    first = sum(a < b for a, b in chosen_pairs(many))
    assert abs(first / 4950 - 0.5) < 4 * 0.5 / 4950**0.5
    assert met(chosen_pairs(many, beyond=10)) < met(chosen_pairs(many, beyond=20))


def taking_part(pairs):
    return {name: sum([SAMPLES[a], SAMPLES[b]].count(name) for a, b in pairs) for name in ("policy", "late", "early")}


@given(st.permutations(list(SAMPLES)), st.integers(0, 9), st.integers(0, 9))
def test_no_generator_takes_part_in_more_pairs_than_its_quota_and_none_is_left_out_that_has_room(order, policy, early):
    everything = chosen_pairs({name: SAMPLES[name] for name in order})
    quota = {"policy": policy, "early": early}
    kept = within_quota(everything, SAMPLES, quota=quota)
    counts = taking_part(kept)
    assert kept == within_quota(everything[::-1], SAMPLES, quota=quota)
    assert counts["policy"] <= policy and counts["early"] <= early
    for a, b in set(everything) - set(kept):
        after = {name: counts[name] + [SAMPLES[a], SAMPLES[b]].count(name) for name in quota}
        assert any(after[name] > quota[name] for name in quota)


def test_without_a_quota_all_pairs_are_kept():
    assert within_quota(chosen_pairs(SAMPLES), SAMPLES, quota={}) == sorted(chosen_pairs(SAMPLES))
