"""Stage `claims`: which of the papers' claims hold in the miniature world, with intervals, and where nothing is decided."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from pydantic import model_validator

from actors.media import decode
from infra.config import ConfigError
from infra.dag.stage import Context, Inputs, TableStage
from pipelines.algorithms.metrics.crossed import crossed_interval
from pipelines.laboratory.contenders import BASE, Claim
from pipelines.laboratory.rows import MEASURES, ClaimVerdict, ContenderScore, KnownStrength, Trial
from pipelines.laboratory.trials import Trials, in_minutes
from pipelines.miniature.world.checker import check
from pipelines.miniature.world.grammar import Expectation
from pipelines.stages.arena import Arena
from pipelines.stages.render import Render

HOLDS, FAILS, OPEN = "holds", "does not hold", "undecided"

# Everything before the trials: measured with 240 training captions and eight generators on two cores.
SECONDS_TO_START = 15.0
SECONDS_PER_CAPTION = 0.16


def verdict(low: float, high: float, *, within: float | None = None) -> str:
    """What a 95 % interval of better minus worse says of the claim; touching 0 decides nothing.

    `within`: the claim is that the difference is smaller than this either way. It holds where the whole interval is, and
    does not where the whole interval lies outside (two one-sided tests, at 2.5 % each).

    >>> verdict(0.01, 0.05), verdict(-0.01, 0.05)
    ('holds', 'undecided')
    >>> verdict(-0.004, 0.006, within=0.01), verdict(0.02, 0.05, within=0.01)
    ('holds', 'does not hold')
    """
    if within is not None:
        if -within < low and high < within:
            return HOLDS
        return FAILS if low > within or high < -within else OPEN
    if low > 0:
        return HOLDS
    return FAILS if high < 0 else OPEN


@dataclass(frozen=True)
class TrialsBySeed:
    """A contender's trials at one noise level, by seed, in the order of the seeds."""

    seeds: tuple[int, ...]
    trials: tuple[Trial, ...]

    def scores(self, measure: str, seeds: Sequence[int]) -> np.ndarray:
        """float[seeds, captions]."""
        by_seed = dict(zip(self.seeds, self.trials, strict=True))
        return np.array([getattr(by_seed[seed], measure) for seed in seeds], dtype=np.float64)

    def diverged(self, seeds: Sequence[int]) -> int:
        """How many of these have no policy to show."""
        return sum(bool(trial.diverged) for trial in self.trials if trial.seed in set(seeds))


class Claims(TableStage):
    """Turns trials into a verdict per claim, noise level and measure, with tables of scores and strengths, and a page."""

    name: ClassVar = "claims"
    version: ClassVar = 2
    row: ClassVar = ClaimVerdict
    tables: ClassVar[Mapping[str, type]] = {"scores": ContenderScore, "roster": KnownStrength}

    trials: Trials
    pictures: Render
    "Pictures of training captions; the checker's scores on them give each generator's known strength."
    arena: Arena
    claims: tuple[Claim, ...]

    @model_validator(mode="after")
    def _known(self) -> Claims:
        noises = {one.name: set(one.noises) for one in self.trials.contenders}
        names = [claim.name for claim in self.claims]
        for claim in self.claims:
            if names.count(claim.name) > 1:
                raise ConfigError(f"two claims are called {claim.name!r}; give each its own name")
            for side in (claim.better, claim.worse):
                if side == BASE and side == claim.worse:
                    continue
                if side not in noises:
                    raise ConfigError(f"claim {claim.name}: there is no contender {side!r}; add it")
                if missing := set(claim.noises) - noises[side]:
                    raise ConfigError(f"claim {claim.name}: {side} is not trained at noise {min(missing):g}; add it there")
        return self

    def run(self, context: Context) -> Iterator[ClaimVerdict]:
        """Claims in their order, by measure and noise."""
        from pipelines.laboratory import page as lab

        runs = self._runs(context)
        found = [row for claim in self.claims for row in self._verdicts(claim, runs)]
        scores, roster = self._scores(runs), self._roster(context)
        context.emit("scores", scores)
        context.emit("roster", roster)
        for word in (HOLDS, FAILS, OPEN):
            context.metric(word, sum(row.verdict == word and row.measure == MEASURES[0] for row in found))
        trials = self.trials
        every = [trial for one in runs.values() for trial in one.trials]
        pairs = {trial.contender: trial.pairs for trial in sorted(every, key=lambda trial: -trial.noise)}
        data = lab.LabReport(
            verdicts=found,
            scores=scores,
            roster=roster,
            claims=[(claim.name, claim.statement) for claim in self.claims],
            sizes=lab.Sizes(
                training=trials.grammar.train,
                tuning=trials.captions,
                evaluation=trials.grammar.evaluation,
                seeds=trials.seeds,
                candidates=trials.budget,
                steps=trials.steps,
                batch=trials.batch,
            ),
            pairs=pairs,
            target=self.key,
        )
        lab.write(data, context.weights_out)
        yield from found

    def _runs(self, context: Context) -> dict[tuple[str, float], TrialsBySeed]:
        """By contender and noise; the base at noise 0."""
        by_place: dict[tuple[str, float], list[Trial]] = defaultdict(list)
        for trial in context.rows(self.trials):
            by_place[trial.contender, trial.noise].append(trial)
        found = {}
        for place, trials in by_place.items():
            trials.sort(key=lambda trial: trial.seed)
            found[place] = TrialsBySeed(tuple(trial.seed for trial in trials), tuple(trials))
        return found

    def _verdicts(self, claim: Claim, runs: Mapping[tuple[str, float], TrialsBySeed]) -> Iterator[ClaimVerdict]:
        for measure in MEASURES:
            for noise in claim.noises:
                yield judge(claim, runs, noise=noise, measure=measure)

    def _scores(self, runs: Mapping[tuple[str, float], TrialsBySeed]) -> list[ContenderScore]:
        """The base first, then contenders in their order."""
        compared = self.trials.contenders
        titles = {BASE: "the generator as it is"} | {one.name: one.title for one in compared}
        places = [(BASE, 0.0)] + [(one.name, noise) for one in compared for noise in one.noises]
        found = []
        for name, noise in places:
            if (name, noise) not in runs:
                continue
            mine = runs[name, noise]
            settings, chosen = Counter(trial.settings for trial in mine.trials).most_common(1)[0]
            found.append(
                ContenderScore(
                    contender=name,
                    title=titles[name],
                    noise=noise,
                    settings=settings,
                    chosen=chosen,
                    candidates=len(mine.trials[0].tried),
                    steps=mine.trials[0].steps,
                    **{measure: float(mine.scores(measure, mine.seeds).mean()) for measure in MEASURES},
                    seeds=len(mine.seeds),
                    diverged=mine.diverged(mine.seeds),
                    tuning_diverged=sum(trial.failed for trial in mine.trials),
                )
            )
        return found

    def _roster(self, context: Context) -> list[KnownStrength]:
        """Generators, strongest first by the checker's scores of the pictures of training captions."""
        asked = context.table(self.pictures.prompts, ["id", "expectation"])
        expectation = dict(zip(asked["id"].to_pylist(), asked["expectation"].to_pylist(), strict=True))
        checked: dict[str, list[tuple[float, ...]]] = defaultdict(list)
        for row in context.table(self.pictures, ["prompt_id", "generator", "image"]).to_pylist():
            pixels = decode(row["image"]["bytes"], clip=False)[0]
            one = check(pixels, Expectation.from_json(expectation[row["prompt_id"]]))
            checked[row["generator"]].append(tuple(float(getattr(one, measure)) for measure in MEASURES))
        ratings: dict[str, Any] = {row.generator: row for row in context.rows(self.arena)}
        found = []
        for name, scores in checked.items():
            means = np.mean(scores, axis=0).tolist()
            found.append(KnownStrength(name, *means, len(scores), ratings[name].mu, ratings[name].sigma))
        return sorted(found, key=lambda row: (-row.strict, row.generator))

    def expected_rows(self, inputs: Inputs) -> int:
        """One row per claim, noise level and measure."""
        del inputs
        return len(MEASURES) * sum(len(claim.noises) for claim in self.claims)

    def demand(self, inputs: Inputs) -> str:
        """The expected wall time of the whole laboratory."""
        del inputs
        trials = self.trials
        data = SECONDS_TO_START + SECONDS_PER_CAPTION * trials.grammar.train * 2 / trials.resources.workers
        whole = data + trials.expected_seconds()
        return f"the whole laboratory {in_minutes(whole, trials.resources.workers)}"


def judge(
    claim: Claim,
    runs: Mapping[tuple[str, float], TrialsBySeed],
    *,
    noise: float,
    measure: str,
) -> ClaimVerdict:
    """Better minus worse over all captions and the seeds that both have; the base is one run against every seed."""
    if (claim.better, noise) not in runs or (claim.worse != BASE and (claim.worse, noise) not in runs):
        raise ConfigError(f"claim {claim.name}: a side has no trial at noise {noise:g}; run again with --retry-errors")
    better = runs[claim.better, noise]
    worse = runs[BASE, 0.0] if claim.worse == BASE else runs[claim.worse, noise]
    seeds = better.seeds if claim.worse == BASE else tuple(seed for seed in better.seeds if seed in worse.seeds)
    if not seeds:
        raise ConfigError(f"claim {claim.name}: both sides have no training seed in common; raise --seeds")
    theirs = worse.seeds * len(seeds) if claim.worse == BASE else seeds
    ours, other = better.scores(measure, seeds), worse.scores(measure, theirs)
    interval = crossed_interval(ours - other)
    return ClaimVerdict(
        claim=claim.name,
        statement=claim.statement,
        better=claim.better,
        worse=claim.worse,
        noise=noise,
        measure=measure,
        better_mean=float(ours.mean()),
        worse_mean=float(other.mean()),
        difference=interval.estimate,
        low=interval.low,
        high=interval.high,
        verdict=verdict(interval.low, interval.high, within=claim.within),
        captions=ours.shape[1],
        seeds=len(seeds),
        diverged=better.diverged(seeds) + (0 if claim.worse == BASE else worse.diverged(seeds)),
    )
