"""A million votes through the arena's rating."""

from __future__ import annotations

import time

import numpy as np

from pipelines.algorithms.rating.gaussian import GaussianRating, rate
from tests.benchmarks.measure import Result

VOTES, PLAYERS = 1_000_000, 64


def run() -> list[Result]:
    """Seconds of one core for a million sequential updates, a tenth of them ties, and the spread over eight orders."""
    generator = np.random.default_rng(0)
    first = generator.integers(PLAYERS, size=VOTES)
    second = (first + generator.integers(1, PLAYERS, size=VOTES)) % PLAYERS
    choice = generator.choice(["a", "b", "tie"], p=[0.45, 0.45, 0.1], size=VOTES).tolist()
    start = time.process_time()
    rate(
        first.tolist(),
        second=second.tolist(),
        choice=choice,
        players=PLAYERS,
        options=GaussianRating(),
        generator=generator,
    )
    return [Result("arena: seconds for 1,000,000 votes", time.process_time() - start, "<= 2", {})]
