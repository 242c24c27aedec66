"""Stage `arena`: preferences to one Gaussian strength per generator (ArenaPO, section 4.1).

Pictures by an unknown generator do not play: their rating would mix everything that is not recorded. They are counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, model_validator

from infra.config import ConfigError
from infra.dag.stage import Context, Inputs, TableStage
from infra.identity import seed_of
from pipelines.algorithms.rating.bradley_terry import BradleyTerryRating, fit_with_intervals
from pipelines.algorithms.rating.counts import count
from pipelines.algorithms.rating.gap import GapSpread, posterior_gaps
from pipelines.algorithms.rating.gaussian import GaussianRating, rate
from pipelines.exchange.pairs import UNKNOWN
from pipelines.schemas.votes import Match, Rating
from pipelines.stages.label import Label
from pipelines.stages.render import Render
from pipelines.stages.sources import Labels


class Arena(TableStage):
    """Preferences in; ratings out, with the matches in the order in which they were played beside.

    `examples` makes the posterior gaps of its pairs from the ratings, once it is clear which picture is the winner.
    """

    name: ClassVar = "arena"
    version: ClassVar = 2
    row: ClassVar = Rating
    tables: ClassVar[Mapping[str, type]] = {"matches": Match}

    labels: Labels
    rating: GaussianRating = GaussianRating()
    "TrueSkill-like updates in an order of the matches drawn by hash."
    spread: GapSpread = "rating"
    "What a gap's spread is made of: the strengths' uncertainty (the paper's), or that and the spread of single pictures."
    bradley_terry: BradleyTerryRating = BradleyTerryRating()
    "The rating reported beside, which does not depend on the order of the matches."
    seed: int = Field(0, ge=0)
    "Seed of the order of the matches and of the bootstrap."

    @model_validator(mode="after")
    def _gaps_have_a_spread(self) -> Arena:
        if self.rating.tau == 0 and self.spread == "rating":
            raise ConfigError(
                "arena: with rating.tau = 0 the uncertainty of strengths goes to 0, and with it the gap of every "
                "surprising win; set spread to picture, or tau above 0"
            )
        return self

    def gaps(
        self, winners: Sequence[str], *, losers: Sequence[str], strengths: Mapping[str, tuple[float, float]]
    ) -> list[float | None]:
        """The posterior gap of pairs whose winners and losers are by these generators; None where one is not rated."""
        beta = self.rating.beta if self.spread == "picture" else 0.0
        return posterior_gaps(winners, losers=losers, strengths=strengths, beta=beta)

    def _matches(self, context: Context) -> tuple[list[Match], list[str]]:
        """Games between different known generators with their prompts, in an order drawn by hash and not as judged."""
        columns = ["id", "prompt_id", "generator_a", "generator_b", "choice"]
        rows: list[dict[str, Any]] = context.table(self.labels, columns).to_pylist()
        known = [row for row in rows if UNKNOWN not in (row["generator_a"], row["generator_b"])]
        context.metric("unknown_generator", len(rows) - len(known))
        played = [row for row in known if row["generator_a"] != row["generator_b"]]
        played.sort(key=lambda row: seed_of("match", self.seed, row["id"]))
        matches = [Match(n, r["id"], r["generator_a"], r["generator_b"], r["choice"]) for n, r in enumerate(played)]
        return matches, [row["prompt_id"] for row in played]

    def run(self, context: Context) -> Iterator[Rating]:
        """Ratings, strongest first."""
        matches, prompts = self._matches(context)
        names = sorted({m.generator_a for m in matches} | {m.generator_b for m in matches})
        if len(names) < 2:
            raise ConfigError(
                f"arena needs votes on 2 generators that are known, got {len(names)}; add one to the roster, or import "
                "pairs that say who made each picture"
            )
        number = {name: place for place, name in enumerate(names)}
        first = [number[m.generator_a] for m in matches]
        games: dict[str, Any] = {"second": [number[m.generator_b] for m in matches], "choice": [m.choice for m in matches]}
        games["players"] = len(names)
        strengths = rate(first, **games, options=self.rating, generator=np.random.default_rng(self.seed))
        counts = count(first, **games)
        generator = np.random.default_rng(self.seed)
        strong = fit_with_intervals(first, **games, prompt=prompts, options=self.bradley_terry, generator=generator)
        context.emit("matches", matches)
        scores = strengths.scores()
        for place in sorted(range(len(names)), key=lambda p: -scores[p]):
            yield Rating(
                generator=names[place],
                mu=strengths.mu[place],
                sigma=strengths.sigma[place],
                mu_spread=strengths.spread[place],
                score=scores[place],
                games=int(counts.won[place] + counts.lost[place] + counts.tied[place]),
                wins=int(counts.won[place]),
                losses=int(counts.lost[place]),
                ties=int(counts.tied[place]),
                bt_strength=float(strong.strength[place]),
                bt_low=float(strong.low[place]),
                bt_high=float(strong.high[place]),
            )

    def expected_rows(self, inputs: Inputs) -> int | None:
        """One per generator of the roster; who made imported pictures is known when they are read."""
        del inputs
        pictures = self.labels.pairs.pictures if isinstance(self.labels, Label) else None
        return len(pictures.roster) if isinstance(pictures, Render) else None
