"""Pairs of one prompt's samples: all within a focus and a limited number beyond it, or each arm with a baseline;
and quotas for the number of pairs that a generator takes part in.

Everything that is drawn is drawn by a hash of the two samples: a pair does not depend on the order in which samples come,
and its sides do not depend on which other samples there are.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import combinations

from infra.identity import seed_of


def chosen_pairs(
    generators: Mapping[str, str], *, focus: Collection[str] = (), beyond: int | None = None, within_generator: bool = True
) -> list[tuple[str, str]]:
    """Pairs (A, B) of sample ids; each pair of samples occurs at most once, and either sample is A with probability 1/2.

    generators: the generator of each sample, by the sample's id.
    focus: generators all of whose pairs with one another are kept.
    beyond: most pairs that are kept of those outside the focus; None keeps all of them.
    within_generator: whether two samples of one generator are a pair.
    """
    near, far = [], []
    for one, other in combinations(sorted(generators), 2):
        makers = {generators[one], generators[other]}
        if len(makers) == 1 and not within_generator:
            continue
        pair = (one, other) if seed_of(one, other) % 2 else (other, one)
        (near if makers <= set(focus) else far).append(pair)
    far.sort(key=lambda pair: seed_of("pair", *pair))
    return sorted(near + far[:beyond])


def matched_pairs(samples: Mapping[str, tuple[str, int]], *, baseline: str) -> list[tuple[str, str]]:
    """Pairs (A, B) of every other generator's sample with the baseline's of the same number: n - 1 instead of n(n - 1)/2.

    samples: the generator and the number of each sample, by the sample's id. Either sample is A with probability 1/2.
    """
    of_baseline = {number: name for name, (generator, number) in samples.items() if generator == baseline}
    pairs = []
    for other, (generator, number) in samples.items():
        if generator != baseline and number in of_baseline:
            first, second = sorted((of_baseline[number], other))
            pairs.append((first, second) if seed_of(first, second) % 2 else (second, first))
    return sorted(pairs)


def within_quota(
    pairs: Collection[tuple[str, str]], generators: Mapping[str, str], *, quota: Mapping[str, int]
) -> list[tuple[str, str]]:
    """The pairs that are kept where each generator may take part in so many pairs of the whole set at most.

    A pair of one generator's samples counts twice for it; a generator that is not named has no limit. Pairs are taken in
    the order of a hash, each that both generators have room for, so that no prompt goes before another. VideoAlign's
    table 1 has such counts: of the pairs that a model takes part in, which sum to twice the number of pairs.

    generators: the generator of each sample, by the sample's id.
    """
    left = dict(quota)
    kept = []
    for pair in sorted(pairs, key=lambda pair: seed_of("quota", *pair)):
        makers = [generators[name] for name in pair]
        if all(left.get(name, 2) >= makers.count(name) for name in makers):
            kept.append(pair)
            for name in makers:
                if name in left:
                    left[name] -= 1
    return sorted(kept)
