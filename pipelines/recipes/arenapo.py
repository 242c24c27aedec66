"""Recipe `arenapo`: ArenaPO's margins on Diffusion-DPO or DSPO, and every baseline of its tables at the same budget.

2,000 steps of 2,048 pairs of Pick-a-Pic v2 (ArenaPO, section 5.1); all else "identical to Diffusion-DPO". That has two
readings. Diffusion-DPO's public launchers have a rate of 1e-8 per pair of the batch (2.048e-5), beta 5,000 and weight decay
0.01 for both models, with AdamW and 500 steps of warm-up for SD1.5, Adafactor and 200 for SDXL; they leave out a fifth of
the texts, exchange left and right of half of the pairs, and crop squares in the middle: the default here. Its text has a
rate of (2000 / beta) 2.048e-8 (`--rate paper`), at which 2,000 steps of AdamW move no weight by more than 4.1e-5. The
launchers sample latents from the posterior of the VAE; Salon encodes once, and takes the mean.

The coefficient c of the gap is searched on a grid in the paper; its value is missing from the text we have, so it is a
flag. `--form sft | mapo | kto`, or `dspo | sdpo | diffusion_dpo` with `--gap none`, are the paper's baselines at the same
budget; `--gap 2` is the uniform margin 2.0 of its Table 5, which replaces the gap and not its product with c.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from actors.training.engines.engine import Adafactor, AdamW
from infra.config import ConfigError
from infra.dag.stage import Stage
from pipelines.algorithms.preference.diffusion_dpo import DiffusionDPO
from pipelines.algorithms.preference.dspo import DSPO
from pipelines.algorithms.preference.kto import KTO
from pipelines.algorithms.preference.loser_gradient import SafeScale, Unscaled
from pipelines.algorithms.preference.mapo import MaPO
from pipelines.algorithms.preference.margin import Margin
from pipelines.algorithms.preference.methods import AnyMethod
from pipelines.algorithms.preference.sft import SFT
from pipelines.recipes.parts.offline import Run, Source, stage
from pipelines.recipes.parts.setup import Setup

Form = Literal["sft", "mapo", "diffusion_dpo", "dspo", "sdpo", "kto"]
Gap = Literal["arena", "reward"] | Annotated[float, Field(ge=0, allow_inf_nan=False)] | None

PAIRS = 851_293  # of Pick-a-Pic v2's training split, ties dropped
SIDES = {"sd15": 512, "sdxl": 1024}
WARM_UP = {"sd15": 500, "sdxl": 200}
BATCH, BETA = 2048, 5000.0
CAPTION_DROPOUT = 0.2
RATE_PER_PAIR = 1e-8
WITH_MARGIN = ("diffusion_dpo", "dspo", "sdpo")


def _margin(form: Form, gap: Gap, scale: float) -> Margin | None:
    """The margin of the form; None for one that has none."""
    if form not in WITH_MARGIN:
        if gap not in (None, "arena"):
            raise ConfigError(
                f"--gap {gap}: {form} has no margin; leave --gap out, or choose --form {'|'.join(WITH_MARGIN)}"
            )
        return None
    return Margin() if gap is None else Margin(scale=scale, gap=gap)


def _method(form: Form, *, margin: Margin | None, beta: float | None, sums: bool) -> AnyMethod:
    """The loss, with the beta of the public code where none is given."""
    if form == "sft":
        if beta is not None:
            raise ConfigError(f"--beta {beta:g}: sft has no beta; leave it out, or choose another --form")
        return SFT()
    if form == "mapo":
        return MaPO() if beta is None else MaPO(beta=beta)
    kl = BETA if beta is None else beta
    if form == "kto":
        return KTO(beta=kl)
    assert margin is not None, "every other form has a margin"
    if form == "dspo":
        logit: float | Literal["sum"] = "sum" if sums else BETA
        return DSPO(logit_beta=logit, margin=margin) if beta is None else DSPO(beta=beta, logit_beta=logit, margin=margin)
    return DiffusionDPO(beta=kl, margin=margin, loser_gradient=SafeScale(mu=0.9) if form == "sdpo" else Unscaled())


def arenapo(
    *,
    model: Annotated[Literal["sd15", "sdxl"], Field(description="generator that is trained")] = "sd15",
    form: Annotated[Form, Field(description="loss: diffusion_dpo, dspo and sdpo take a margin")] = "diffusion_dpo",
    gap: Annotated[
        Gap,
        Field(
            description="quality gap of a pair, of which its margin is made where the form has one: arena, reward (the "
            "lead in a reward model's scores: columns score_a_overall and score_b_overall of the files), a number (one "
            "gap for all pairs, on the arena's scale), or none"
        ),
    ] = "arena",
    scale: Annotated[float, Field(ge=0, description="coefficient c: the margin is c times the gap")] = 0.1,
    beta: Annotated[
        float | None,
        Field(
            gt=0,
            description="KL weight on mean errors, 5000 by default; for mapo the weight of its margin (0.1), for dspo of "
            "its second term (0.001, below 1)",
        ),
    ] = None,
    dspo_sums: Annotated[
        bool, Field(description="dspo: its one beta on summed errors, as printed, in place of 5000 on mean errors")
    ] = False,
    rate: Annotated[
        Literal["launcher", "paper"],
        Field(
            description="learning rate: 1e-8 per pair of the batch as in public code, or (2000/beta) 2.048e-8 as printed"
        ),
    ] = "launcher",
    optimizer: Annotated[
        Literal["adamw", "adafactor"] | None, Field(description="adamw for sd15 and adafactor for sdxl by default")
    ] = None,
    adapter: Annotated[Literal["full", "lora"], Field(description="what is trained: all weights, or a LoRA")] = "full",
    flips: Annotated[bool, Field(description="exchange left and right of half of the pairs")] = True,
    source: Source = Source(),
    setup: Setup = Setup(),
) -> Stage:
    """import -> import_labels -> arena -> examples -> tune."""
    if dspo_sums and form != "dspo":
        raise ConfigError(f"--dspo-sums: {form} has no such beta; choose --form dspo")
    margin = _margin(form, gap, scale)
    method = _method(form, margin=margin, beta=beta, sums=dspo_sums)
    rated = margin is not None and margin.scale > 0 and margin.gap == "arena"
    given: dict[str, Any] = {}
    if margin is not None and margin.scale > 0 and margin.gap == "reward":
        given = {"scores": "pairs", "use_of_scores": "--gap reward", "instead_of_scores": "choose another --gap"}
    data = source.data(expected=PAIRS, area=SIDES[model] ** 2, square=True, flips=flips, arena=rated, **given)
    kl = method.beta if isinstance(method, DiffusionDPO | KTO) else BETA
    chosen = optimizer or ("adafactor" if model == "sdxl" else "adamw")
    run = Run(
        steps=2000,
        batch=BATCH,
        learning_rate=RATE_PER_PAIR * BATCH if rate == "launcher" else 2000 / kl * 2.048e-8,
        warm_up=WARM_UP[model],
        caption_dropout=CAPTION_DROPOUT,
        optimizer=Adafactor(weight_decay=0.01) if chosen == "adafactor" else AdamW(betas=(0.9, 0.999), weight_decay=0.01),
    ).of(source)
    return stage(source.model(model, adapter), data, method, run, setup=setup, label=form)
