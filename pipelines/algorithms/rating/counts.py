"""Outcomes of games as counts between players: all that an order-free rating needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from infra.config import ConfigError


@dataclass(frozen=True)
class Counts:
    """How often i beat j, and how often the two tied."""

    wins: Int[np.ndarray, "players players"]
    """wins[i, j]: games that i won against j."""
    ties: Int[np.ndarray, "players players"]
    """ties[i, j] = ties[j, i]: ties of the two."""

    @property
    def won(self) -> Int[np.ndarray, " players"]:
        """Wins of each player."""
        return self.wins.sum(1)

    @property
    def lost(self) -> Int[np.ndarray, " players"]:
        """Losses of each player."""
        return self.wins.sum(0)

    @property
    def tied(self) -> Int[np.ndarray, " players"]:
        """Ties of each player."""
        return self.ties.sum(1)


def count(first: Sequence[int], *, second: Sequence[int], choice: Sequence[str], players: int) -> Counts:
    """Counts of games between positions `first` and `second`; `choice` is a (first won), b or tie."""
    a, b = np.asarray(first, dtype=np.int64), np.asarray(second, dtype=np.int64)
    outcome = np.asarray(choice, dtype=object)
    strange = set(choice) - {"a", "b", "tie"}
    if strange:
        raise ConfigError(f"outcome {sorted(map(str, strange))[0]!r} of a game is none of a, b, tie; drop unreadable votes")
    if (a == b).any():
        raise ConfigError(f"{int((a == b).sum())} games of a player against itself; pair different generators")
    a_won, b_won = outcome == "a", outcome == "b"
    tied = ~a_won & ~b_won
    wins = _table(a[a_won], columns=b[a_won], players=players) + _table(b[b_won], columns=a[b_won], players=players)
    ties = _table(a[tied], columns=b[tied], players=players)
    return Counts(wins=wins, ties=ties + ties.T)


def _table(rows: np.ndarray, *, columns: np.ndarray, players: int) -> np.ndarray:
    return np.bincount(rows * players + columns, minlength=players * players).reshape(players, players)
