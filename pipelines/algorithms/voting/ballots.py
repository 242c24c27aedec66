"""Answers of jurors as arrays, and each juror's ballot on each pair from both orders.

Codes: 0 is a, 1 is b, 2 is tie, 3 is nothing (an unparsable answer, an abstention, or no vote at all). A juror that
contradicts itself when the pictures are swapped has said "tie": its answers came from the position.

>>> votes = {"juror": ["x", "x", "x", "x"], "order": ["ab", "ba", "ab", "ba"], "choice": ["a", "a", "a", "b"]}
>>> given = answers(["pair 1", "pair 1", "pair 2", "pair 2"], **votes)
>>> ballots(given, options=Consistency()).tolist()  # a in both orders; then whichever was shown first
[[0], [2]]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int, Int8

from infra.config import Config, ConfigError

A, B, TIE, NOTHING = 0, 1, 2, 3
CHOICES = ("a", "b", "tie", "unparsable")
"""Names of the codes as votes carry them."""
ORDERS = ("ab", "ba")
"""Which picture was shown first."""


class Consistency(Config):
    """How a juror's answers in both orders become one ballot."""

    contradiction: Literal["tie", "abstain"] = "tie"
    """When the answers to the two orders differ."""
    unconfirmed: Literal["count", "abstain"] = "abstain"
    """When one of several answers could not be read: the readable one, or nothing. A pair shown once counts."""


@dataclass(frozen=True)
class Answers:
    """Votes as arrays with one entry per vote."""

    pair: Int[np.ndarray, " votes"]
    juror: Int[np.ndarray, " votes"]
    order: Int8[np.ndarray, " votes"]
    """0: a was shown first, 1: b was."""
    choice: Int8[np.ndarray, " votes"]
    """Code of the answer in terms of the pair, not of the position."""
    pair_ids: tuple[str, ...]
    juror_names: tuple[str, ...]

    def table(self) -> Int[np.ndarray, "pairs jurors 4"]:
        """How often each juror gave each answer on each pair."""
        pairs, jurors = len(self.pair_ids), len(self.juror_names)
        cell = (self.pair * jurors + self.juror) * 4 + self.choice
        return np.bincount(cell, minlength=pairs * jurors * 4).reshape(pairs, jurors, 4)


def answers(pair_id: Sequence[str], *, juror: Sequence[str], order: Sequence[str], choice: Sequence[str]) -> Answers:
    """Votes from the columns of their table; pairs and jurors are numbered in sorted order of their names."""
    pair_ids, juror_names = tuple(sorted(set(pair_id))), tuple(sorted(set(juror)))
    return Answers(
        pair=_codes(pair_id, names=pair_ids, what="pair").astype(np.int64),
        juror=_codes(juror, names=juror_names, what="juror").astype(np.int64),
        order=_codes(order, names=ORDERS, what="order").astype(np.int8),
        choice=_codes(choice, names=CHOICES, what="choice").astype(np.int8),
        pair_ids=pair_ids,
        juror_names=juror_names,
    )


def ballots(given: Answers, *, options: Consistency) -> Int8[np.ndarray, "pairs jurors"]:
    """One code per pair and juror: the answer all of its readable votes agree on, or what `options` makes of the rest."""
    table = given.table()
    readable = table[:, :, :NOTHING]
    kinds = (readable > 0).sum(2)
    said = readable.argmax(2).astype(np.int8)
    said[kinds == 0] = NOTHING
    said[kinds > 1] = TIE if options.contradiction == "tie" else NOTHING
    if options.unconfirmed == "abstain":
        said[(table[:, :, NOTHING] > 0) & (kinds > 0)] = NOTHING
    return said


def _codes(values: Sequence[str], *, names: Sequence[str], what: str) -> np.ndarray:
    number = {name: code for code, name in enumerate(names)}
    try:
        return np.fromiter((number[value] for value in values), dtype=np.int64, count=len(values))
    except KeyError as error:
        raise ConfigError(f"vote with {what} {error.args[0]!r}; known are {', '.join(names)}") from error
