"""Sets of pictures to be ranked together, such that every pair that is to be compared lies in one of them."""

from __future__ import annotations

from collections.abc import Collection

from infra.identity import seed_of


def covering_sets(pairs: Collection[tuple[str, str]], *, most: int) -> list[tuple[str, ...]]:
    """Sets of 2 to `most` ids, each sorted; both ids of every pair are together in at least one set.

    Greedy: a set begins with a pair that no set holds yet, and takes the id that covers most further pairs until it is full
    or no id covers another one. Ties are broken by a hash, so the sets do not depend on the order of the pairs.

    >>> covering_sets([("a", "b"), ("b", "c"), ("a", "c"), ("c", "d")], most=3)
    [('a', 'b', 'c'), ('c', 'd')]
    """
    near: dict[str, set[str]] = {}
    for one, other in pairs:
        near.setdefault(one, set()).add(other)
        near.setdefault(other, set()).add(one)
    found: list[tuple[str, ...]] = []
    while open_ids := [name for name in near if near[name]]:
        first = max(open_ids, key=lambda name: (len(near[name]), seed_of("set", name)))
        chosen = {first}
        while len(chosen) < most:
            gains = {name: len(near[name] & chosen) for name in near if name not in chosen}
            best = max(gains, key=lambda name: (gains[name], len(near[name]), seed_of("set", name)), default=None)
            if best is None or not gains[best]:
                break
            chosen.add(best)
        for name in chosen:
            near[name] -= chosen
        found.append(tuple(sorted(chosen)))
    return sorted(found)
