"""Stage `arena`: preferences to one Gaussian strength a generator, and the posterior gap of every pair (ArenaPO)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from infra.config import ConfigError
from infra.dag.stage import Context, Inputs, TableStage
from infra.identity import seed_of
from pipelines.algorithms.rating.bradley_terry import BradleyTerryRating, fit_with_intervals
from pipelines.algorithms.rating.counts import count
from pipelines.algorithms.rating.gap import posterior_gaps
from pipelines.algorithms.rating.gaussian import GaussianRating, rate
from pipelines.schemas.votes import Gap, Match, Rating
from pipelines.stages.label import Label
from pipelines.stages.sources import Labels


class Arena(TableStage):
    """Preferences in; ratings out, with the order of the matches and the gap of every decided pair beside."""

    name: ClassVar = "arena"
    row: ClassVar = Rating
    tables: ClassVar[Mapping[str, type]] = {"matches": Match, "gaps": Gap}

    labels: Labels
    rating: GaussianRating = GaussianRating()
    "TrueSkill-like updates in the stored order."
    bradley_terry: BradleyTerryRating = BradleyTerryRating()
    "The order-free rating reported beside."
    seed: int = Field(0, ge=0)
    "Of the match order and the bootstrap."

    def _matches(self, context: Context) -> list[Match]:
        """Games between different generators, in an order drawn by hash: not the order in which they were judged."""
        columns = ["id", "generator_a", "generator_b", "choice"]
        rows: list[dict[str, Any]] = context.table(self.labels, columns).to_pylist()
        rows = [row for row in rows if row["generator_a"] != row["generator_b"]]
        rows.sort(key=lambda row: seed_of("match", self.seed, row["id"]))
        return [Match(n, r["id"], r["generator_a"], r["generator_b"], r["choice"]) for n, r in enumerate(rows)]

    def run(self, context: Context) -> Iterator[Rating]:
        """Ratings, strongest first."""
        matches = self._matches(context)
        names = sorted({m.generator_a for m in matches} | {m.generator_b for m in matches})
        if len(names) < 2:
            raise ConfigError(f"arena needs votes on 2 generators, got {len(names)}; add one to the roster")
        number = {name: place for place, name in enumerate(names)}
        first = [number[m.generator_a] for m in matches]
        second = [number[m.generator_b] for m in matches]
        choice = [m.choice for m in matches]
        generator = np.random.default_rng(self.seed)
        strengths = rate(first, second=second, choice=choice, players=len(names), options=self.rating, generator=generator)
        counts = count(first, second=second, choice=choice, players=len(names))
        strong = fit_with_intervals(counts, options=self.bradley_terry, generator=np.random.default_rng(self.seed))
        context.emit("matches", matches)
        context.emit("gaps", self._gaps(context, number, strengths.mu, strengths.sigma))
        scores = strengths.scores()
        for place in sorted(range(len(names)), key=lambda p: -scores[p]):
            yield Rating(
                generator=names[place],
                mu=strengths.mu[place],
                sigma=strengths.sigma[place],
                score=scores[place],
                games=int(counts.won[place] + counts.lost[place] + counts.tied[place]),
                wins=int(counts.won[place]),
                losses=int(counts.lost[place]),
                ties=int(counts.tied[place]),
                bt_strength=float(strong.strength[place]),
                bt_low=float(strong.low[place]),
                bt_high=float(strong.high[place]),
            )

    def _gaps(self, context: Context, number: dict[str, int], mu: list[float], sigma: list[float]) -> list[Gap]:
        """Every decided pair, those within one generator included: their prior difference is zero."""
        columns = ["id", "generator_a", "generator_b", "choice"]
        rows = [r for r in context.table(self.labels, columns).to_pylist() if r["choice"] != "tie"]
        rows = [r for r in rows if r["generator_a"] in number and r["generator_b"] in number]
        sides = {"a": ("generator_a", "generator_b"), "b": ("generator_b", "generator_a")}
        winner = [number[row[sides[row["choice"]][0]]] for row in rows]
        loser = [number[row[sides[row["choice"]][1]]] for row in rows]
        gaps = posterior_gaps(winner, loser=loser, mu=mu, sigma=sigma)
        return [Gap(row["id"], gap) for row, gap in zip(rows, gaps, strict=True)]

    def expected_rows(self, inputs: Inputs) -> int | None:
        """One a generator of the roster; who made imported pictures is known when they are read."""
        del inputs
        return len(self.labels.pairs.pictures.roster) if isinstance(self.labels, Label) else None
