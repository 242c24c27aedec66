"""Recipe `lab`: which of the papers' claims hold in the miniature world, every method with the same tuning budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from infra.config import ConfigError
from infra.dag.stage import Resources
from pipelines.algorithms.diffusion.flow import UniformTimes
from pipelines.algorithms.preference.dspo import DSPO
from pipelines.algorithms.preference.flow_dpo import FlowDPO
from pipelines.algorithms.preference.loser_gradient import SafeScale
from pipelines.algorithms.preference.mapo import MaPO
from pipelines.algorithms.preference.margin import Margin
from pipelines.algorithms.preference.polynomial import AutoAlpha, FixedAlpha
from pipelines.algorithms.preference.rwr import RWR
from pipelines.algorithms.preference.sft import SFT
from pipelines.laboratory.claims import Claims
from pipelines.laboratory.contenders import BASE, Claim, Contender, Data, Phase
from pipelines.laboratory.trials import Trials
from pipelines.miniature import generators, jurors
from pipelines.miniature.family import MiniatureFamily
from pipelines.miniature.generators import MiniatureGenerator
from pipelines.miniature.prompts import Grammar
from pipelines.miniature.world.draw import SIZE
from pipelines.recipes.miniature import POLICY, SOURCES
from pipelines.recipes.parts.loop import LabelledPairs, labelled_pairs
from pipelines.stages.examples import Examples
from pipelines.stages.jury_scores import JuryScores
from pipelines.stages.prompts import WritePrompts
from pipelines.training.buckets import Buckets

BUDGET = 4
"""Settings a contender may have to choose from, its two learning rates first: with two strengths, or four rates."""
RATES, BETAS = (3e-4, 1e-4), (500.0, 100.0)
SLOW = (1e-4, 3e-5)
"""Learning rates of what has no reference to stay close to."""
DECAY, WHOLE_DECAY = 5.0, 3.0
"""(1 - t)^2 is 0.19 in the mean over the times trained at: five times the beta ties as closely to the reference.
Over all of [0, 1] it is 1/3."""
ALPHA, TRIVIAL_ALPHA = 8.0, -0.5
MARGINS, MEAN_GAP = (0.1, 0.3), 2.5
"""Scales of the arena's gap, and about its mean over the roster's pairs: uniform margins are as large in the mean."""
LONG = 3
ALIKE = 0.01
"""Difference in score below which two settings count as equal: one point of a hundred."""
NOISES = (0.0, 0.15, 0.3)
DEFAULT = {"prompts": 360, "tuning": 120, "evaluation": 600, "seeds": 5, "steps": 40, "candidates": 2}
QUICK = {"prompts": 60, "tuning": 48, "evaluation": 120, "seeds": 2, "steps": 10, "candidates": 2}
QUICK_NOISES = (0.0, 0.3)

Grid = tuple[tuple[Phase, ...], ...]


def roster() -> tuple[MiniatureGenerator, ...]:
    """Nine generators: the five shipped, and four of them sampled otherwise."""
    known = {one.name: one for one in generators.shipped()}

    def variant(name: str, of: str, **changed: Any) -> MiniatureGenerator:
        return known[of].model_copy(update={"name": name, **changed})

    return (
        *known.values(),
        variant("policy-guided", POLICY, guidance=2.0),
        variant("policy-3-steps", POLICY, steps=3),
        variant("late-4-steps", "late", steps=4),
        variant("middle-guided", "middle", guidance=2.0),
    )


def _dpo(*, factor: float = 1.0, **options: Any) -> Grid:
    """Two learning rates by two betas."""
    return tuple(
        (Phase(method=FlowDPO(beta=beta * factor, **options), learning_rate=rate),) for beta in BETAS for rate in RATES
    )


def _margins(uniform: bool) -> Grid:
    """Two learning rates by two margins."""
    found = []
    for scale in MARGINS:
        margin = Margin(scale=scale, gap=MEAN_GAP if uniform else "arena")
        found += [(Phase(method=FlowDPO(margin=margin), learning_rate=rate),) for rate in RATES]
    return tuple(found)


def _two_phases(alpha: FixedAlpha) -> Grid:
    """SFT for half of the steps, then Poly-DPO from there: two learning rates each."""
    poly = FlowDPO(polynomial=alpha)
    return tuple(
        (Phase(method=SFT(), learning_rate=slow, share=0.5), Phase(method=poly, learning_rate=rate, share=0.5))
        for slow in SLOW
        for rate in RATES
    )


def contenders(noises: Sequence[float]) -> tuple[Contender, ...]:
    """Everything that is compared, at these noise levels; on trivial pairs without noise only."""
    sft = tuple((Phase(method=SFT(), learning_rate=rate),) for rate in (*SLOW, 3e-4, 1e-5))
    rwr = tuple((Phase(method=RWR(temperature=t), learning_rate=rate),) for t in (1.0, 0.5) for rate in SLOW)
    poly, auto, negative = FixedAlpha(alpha=ALPHA), AutoAlpha(), FixedAlpha(alpha=TRIVIAL_ALPHA)
    mapo = tuple((Phase(method=MaPO(beta=beta), learning_rate=rate),) for beta in (0.1, 0.01) for rate in SLOW)
    dspo = tuple(
        (Phase(method=DSPO(beta=beta, logit_beta=500.0), learning_rate=rate),) for beta in (0.3, 0.9) for rate in SLOW
    )
    decay = _dpo(factor=DECAY, weighting="(1-t)^2")
    every: tuple[tuple[str, str, Data, int, Grid], ...] = (
        ("dpo", "Flow-DPO, constant beta", "near", 1, _dpo()),
        ("decaying", "Flow-DPO, beta (1-t)^2", "near", 1, decay),
        ("dpo-long", "Flow-DPO, constant beta, long", "near", LONG, _dpo()),
        ("decaying-long", "Flow-DPO, beta (1-t)^2, long", "near", LONG, decay),
        ("sft", "SFT on winners", "near", 1, sft),
        ("rwr", "reward-weighted regression", "near", 1, rwr),
        ("poly", f"Poly-DPO, alpha {ALPHA:g}", "near", 1, _dpo(polynomial=poly)),
        ("auto", "Poly-DPO, automatic alpha", "near", 1, _dpo(polynomial=auto)),
        ("sft-poly", "SFT, then Poly-DPO", "near", 1, _two_phases(poly)),
        ("arena", "ArenaPO's margins, whole roster", "roster", 1, _margins(uniform=False)),
        ("uniform", "uniform margins, whole roster", "roster", 1, _margins(uniform=True)),
        ("dpo-roster", "Flow-DPO without margin, whole roster", "roster", 1, _dpo()),
        ("sdpo", "Diffusion-SDPO's safe scale", "near", 1, _dpo(loser_gradient=SafeScale(mu=0.5))),
        ("mapo", "MaPO", "near", 1, mapo),
        ("dspo", "DSPO", "near", 1, dspo),
        ("poly-plus", "Poly-DPO, alpha 1", "near", 1, _dpo(polynomial=FixedAlpha(alpha=1.0))),
        ("poly-minus", "Poly-DPO, alpha -1", "near", 1, _dpo(polynomial=FixedAlpha(alpha=-1.0))),
        ("dpo-trivial", "SFT, then Flow-DPO on trivial pairs", "trivial", 1, _two_phases(FixedAlpha())),
        ("poly-trivial", f"SFT, then alpha {TRIVIAL_ALPHA:g} on trivial pairs", "trivial", 1, _two_phases(negative)),
    )
    found = []
    for name, title, data, length, grid in every:
        levels = tuple(noise for noise in noises if noise == 0 or data != "trivial")
        found.append(Contender(name=name, title=title, data=data, length=length, noises=levels, candidates=grid))
    return tuple(one for one in (*found, *_conflicting(noises), *_whole_range(noises)) if one.noises)


def _conflicting(noises: Sequence[float]) -> list[Contender]:
    """DPO and Poly-DPO where labels are words of conflicting dimensions, ViPO's noise, in place of flips."""
    wrong = tuple(noise for noise in noises if noise > 0)
    grids = {"dpo": _dpo(), "poly": _dpo(polynomial=FixedAlpha(alpha=ALPHA))}
    titles = {"dpo": "Flow-DPO, conflicting dimensions", "poly": f"Poly-DPO, alpha {ALPHA:g}, conflicting dimensions"}
    return [
        Contender(name=f"{name}-conflict", title=titles[name], noises=wrong, noise_kind="conflict", candidates=grid)
        for name, grid in grids.items()
    ]


def _whole_range(noises: Sequence[float]) -> list[Contender]:
    """Both weights of Flow-DPO at times in [0, 1], as the paper trains: near t = 0 (1 - t)^2 is largest."""
    clean, times = tuple(noise for noise in noises if noise == 0), UniformTimes(low=0.0, high=1.0)
    grids = {"dpo": _dpo(), "decaying": _dpo(factor=WHOLE_DECAY, weighting="(1-t)^2")}
    titles = {"dpo": "Flow-DPO, constant beta, times in [0, 1]", "decaying": "Flow-DPO, beta (1-t)^2, times in [0, 1]"}
    return [
        Contender(name=f"{name}-whole", title=titles[name], noises=clean, times=times, candidates=grid)
        for name, grid in grids.items()
    ]


def claims(noises: Sequence[float]) -> tuple[Claim, ...]:
    """The papers' claims, each at the noise levels that it speaks of."""
    every, clean = tuple(noises), tuple(noise for noise in noises if noise == 0)
    wrong = tuple(noise for noise in noises if noise > 0)
    found = (
        ("dpo-base", "Flow-DPO is better than the base", "dpo", BASE, every),
        ("dpo-sft", "Flow-DPO is better than SFT on the winners (VideoAlign)", "dpo", "sft", every),
        ("dpo-rwr", "Flow-DPO is better than reward-weighted regression (VideoAlign)", "dpo", "rwr", every),
        ("constant-short", "Constant beta is better than (1-t)^2, short training", "dpo", "decaying", every),
        ("constant-long", "Constant beta is better than (1-t)^2, long training", *LONGER, every),
        ("constant-whole", "Constant beta is better than (1-t)^2, times in [0, 1] (VideoAlign)", *WHOLE, clean),
        ("poly-flips", "Poly-DPO with alpha above 0 is better than DPO on flipped labels", "poly", "dpo", wrong),
        ("poly-conflict", "Poly-DPO with alpha above 0 is better where dimensions conflict (ViPO)", *CONFLICT, wrong),
        ("poly-trivial", "After SFT, alpha below 0 is better than 0 on trivial pairs (ViPO)", *TRIVIAL, clean),
        ("auto-dpo", "An automatic alpha is better than alpha 0 (Salon)", "auto", "dpo", every),
        ("auto-poly", f"An automatic alpha is better than alpha {ALPHA:g} (Salon)", "auto", "poly", every),
        ("arena-dpo", "ArenaPO is better than Flow-DPO on the same pairs (ArenaPO, Table 2)", "arena", "dpo-roster", every),
        (
            "arena-uniform",
            "ArenaPO's margins are better than uniform margins (ArenaPO, Table 5)",
            "arena",
            "uniform",
            every,
        ),
        ("both-sft", "SFT then Poly-DPO is better than SFT alone (ViPO)", "sft-poly", "sft", every),
        ("both-poly", "SFT then Poly-DPO is better than Poly-DPO alone (ViPO)", "sft-poly", "poly", every),
    )
    kept = [(name, words, better, worse, levels) for name, words, better, worse, levels in found if levels]
    better = [Claim(name=n, statement=words, better=b, worse=w, noises=levels) for n, words, b, w, levels in kept]
    equal = (("poly-plus", "1"), ("poly-minus", "-1")) if clean else ()
    same = [
        Claim(
            name=f"{name}-clean",
            statement=f"Alpha {alpha} scores within {100 * ALIKE:g} points of alpha 0 on clean labels (ViPO)",
            better=name,
            worse="dpo",
            noises=clean,
            within=ALIKE,
        )
        for name, alpha in equal
    ]
    return (*better, *same)


LONGER, TRIVIAL = ("dpo-long", "decaying-long"), ("poly-trivial", "dpo-trivial")
WHOLE, CONFLICT = ("dpo-whole", "decaying-whole"), ("poly-conflict", "dpo-conflict")


def _chosen(methods: tuple[str, ...], noises: tuple[float, ...], tried: int) -> tuple[Contender, ...]:
    """The named contenders, all where none is named, with their first `tried` settings."""
    known = contenders(noises)
    for name in methods:
        if name not in {one.name for one in known}:
            raise ConfigError(f"--methods: unknown name {name!r}; known are {', '.join(one.name for one in known)}")
    wanted = [one for one in known if not methods or one.name in methods]
    return tuple(one.model_copy(update={"candidates": one.candidates[:tried]}) for one in wanted)


def _loop(captions: WritePrompts, base: generators.MiniatureGenerator, resources: Resources) -> LabelledPairs:
    """From captions to labels and latents of the laboratory's own roster."""
    return labelled_pairs(
        captions,
        roster=roster(),
        jury=jurors.shipped(),
        policy=MiniatureFamily(weights=base.weights),
        buckets=Buckets(area=SIZE**2, multiple=SIZE),
        samples={POLICY: 4},
        per_prompt=8,
        focus=SOURCES,
        resources=resources,
    )


def lab(
    *,
    quick: Annotated[bool, Field(description="small sizes for a first look: wider intervals")] = False,
    methods: Annotated[tuple[str, ...], Field(description="contenders, by name (default: all)")] = (),
    noises: Annotated[
        tuple[Annotated[float, Field(ge=0, lt=0.5)], ...] | None,
        Field(description="shares of flipped labels (default: 0,0.15,0.3, or 0,0.3 if quick)"),
    ] = None,
    seeds: Annotated[int | None, Field(ge=1, le=100, description="training seeds (default: 5, or 2 if quick)")] = None,
    candidates: Annotated[
        int | None, Field(ge=1, le=BUDGET, description="settings that every contender tries with every seed (default: 2)")
    ] = None,
    steps: Annotated[int | None, Field(ge=2, description="steps of a short training (default: 40, or 10 if quick)")] = None,
    batch: Annotated[int, Field(ge=1, description="pairs per step")] = 32,
    prompts: Annotated[
        int | None, Field(ge=6, le=3000, description="training captions (default: 360, or 60 if quick)")
    ] = None,
    tuning: Annotated[
        int | None, Field(ge=6, le=1000, description="captions that choose settings (default: 120, or 48 if quick)")
    ] = None,
    evaluation: Annotated[
        int | None, Field(ge=6, le=1000, description="held-out captions (default: 600, or 120 if quick)")
    ] = None,
    seed: Annotated[int, Field(ge=0, description="seed of the training captions")] = 0,
    workers: Annotated[int, Field(ge=1, le=1024, description="trials that run at a time, with one core each")] = 2,
) -> Claims:
    """prompts -> render -> pair -> judge -> label -> arena, encode -> examples -> trials -> claims (lab.html)."""
    asked = {"prompts": prompts, "tuning": tuning, "evaluation": evaluation, "seeds": seeds, "steps": steps}
    given = {name: value for name, value in (asked | {"candidates": candidates}).items() if value is not None}
    sizes = (QUICK if quick else DEFAULT) | given
    levels = tuple(sorted(set(noises or (QUICK_NOISES if quick else NOISES))))
    resources = Resources(workers=workers, resident=9, stall_s=3600.0)  # a long trial is one row
    base = next(one for one in generators.shipped() if one.name == POLICY)
    captions = WritePrompts(source=Grammar(train=sizes["prompts"], evaluation=sizes["evaluation"], seed=seed))
    loop = _loop(captions, base, resources)
    examples = Examples(labels=loop.labels, encoded=loop.encoded, arena=loop.arena, scores=JuryScores(labels=loop.labels))
    compared = _chosen(methods, levels, sizes["candidates"])
    trials = Trials(
        prompts=captions,
        examples=examples,
        base=base,
        near=SOURCES,
        contenders=compared,
        captions=sizes["tuning"],
        steps=sizes["steps"],
        batch=batch,
        seeds=sizes["seeds"],
        resources=resources,
    )
    names = {BASE, *(one.name for one in compared)}
    return Claims(
        trials=trials,
        pictures=loop.pictures,
        arena=loop.arena,
        claims=tuple(claim for claim in claims(levels) if {claim.better, claim.worse} <= names),
    )
