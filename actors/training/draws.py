"""Which examples, which noise and which times belong to a step: a function of seeds and the step's number alone.

Every group of examples is an endless stream of shuffled epochs, and a batch is the next piece of one group's stream. Which
group a step draws from follows from the sizes: in a period of as many steps as there are examples (divided by the sizes'
greatest common divisor) each group has steps in proportion to its size, spread as evenly as possible. There is no data
loader whose position would have to be restored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from infra.identity import seed_of


@dataclass(frozen=True)
class Draw:
    """One example of a batch."""

    index: int
    """Index of the example in the objective's data."""
    seed: int
    """Seed of the noise and time of this example in this step."""
    epoch: int
    """Number of times this example was drawn before."""


class Batches:
    """The batch of every step."""

    def __init__(self, seed: int, *, batch: int, size: int, groups: Sequence[int] | np.ndarray | None) -> None:
        """`size` examples in batches of `batch`; `groups`: each example's group, None for one group of all."""
        if groups is not None and len(groups) != size:
            raise ValueError(f"{len(groups)} groups for {size} examples; give each example its group")
        self.seed, self.batch = seed, batch
        labels = np.zeros(size, dtype=np.int64) if groups is None else np.asarray(groups)
        self.members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        self.owners, self.turns = _turns([len(members) for members in self.members])
        self._orders: dict[tuple[int, int], np.ndarray] = {}

    def draws(self, step: int) -> list[Draw]:
        """The batch of a step, all of one group."""
        group, turn = self._turn(step)
        members = self.members[group]
        found = []
        for place in range(self.batch):
            epoch, position = divmod(turn * self.batch + place, len(members))
            index = int(members[self._order(group, epoch)[position]])
            found.append(Draw(index=index, seed=seed_of(self.seed, "draw", step * self.batch + place), epoch=epoch))
        return found

    def _turn(self, step: int) -> tuple[int, int]:
        """The group of a step, and the number of earlier steps of that group."""
        period, place = divmod(step, len(self.owners))
        group = int(self.owners[place])
        return group, period * int((self.owners == group).sum()) + int(self.turns[place])

    def _order(self, group: int, epoch: int) -> np.ndarray:
        """The shuffled positions of one epoch. Epochs before the last one are dropped: batches move forward only."""
        key = (group, epoch)
        if key not in self._orders:
            for old in [held for held in self._orders if held[0] == group and held[1] < epoch - 1]:
                del self._orders[old]
            seed = seed_of(self.seed, "epoch", epoch, *([group] if group else []))
            self._orders[key] = np.random.default_rng(seed).permutation(len(self.members[group]))
        return self._orders[key]


def _turns(sizes: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """For each step of one period: (its group, the number of earlier steps of that group), both int[n].

    The k-th of a group's n steps is due at (k + 1/2) / n of the period (Webster's order); where two are due at once, the
    larger group comes first.
    """
    reduced = [size // math.gcd(*sizes) for size in sizes]
    owners = np.repeat(np.arange(len(sizes)), reduced)
    turns = np.concatenate([np.arange(count) for count in reduced]) if reduced else owners
    counts = np.repeat(reduced, reduced)
    order = np.lexsort((owners, -counts, (turns + 0.5) / counts))
    return owners[order], turns[order]
