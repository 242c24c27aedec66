"""What every recipe that renders shares: from prompts to labels and latents, and the evaluation on held-out prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from infra.dag.stage import Resources
from pipelines.models.families.base import Family
from pipelines.models.generators.generator import Generator
from pipelines.models.jurors.juror import Juror
from pipelines.models.scorers.scorer import Scorer
from pipelines.stages.arena import Arena
from pipelines.stages.encode import Encode, Encoders
from pipelines.stages.evaluate import Evaluate
from pipelines.stages.judge import Judge
from pipelines.stages.label import Label
from pipelines.stages.pair import PairSamples
from pipelines.stages.prompts import WritePrompts
from pipelines.stages.rank import Rank, RankedVotes
from pipelines.stages.render import Render, RenderClips
from pipelines.stages.score import ScoreSamples
from pipelines.stages.sources import Pictures
from pipelines.training.buckets import Buckets

EVALUATION, HELD_OUT = "evaluation", "held-out"
"""Labels of the evaluation's stages, and of those of a jury that taught nobody."""


@dataclass(frozen=True)
class LabelledPairs:
    """The nodes from prompts to labels and latents."""

    prompts: WritePrompts
    pictures: Render
    pairs: PairSamples
    labels: Label
    arena: Arena
    encoded: Encode


@dataclass(frozen=True)
class Animated:
    """Generators that make clips of a picture, and the pictures that they begin with."""

    names: tuple[str, ...]
    pictures: Pictures


def _rendered(prompts: WritePrompts, roster: Sequence[Generator], animated: Animated | None, **options: Any) -> Render:
    """Pictures or clips by the roster; those of it that animate begin with a picture of the prompt."""
    if roster[0].medium == "image":
        return Render(prompts=prompts, roster=tuple(roster), **options)
    animate = tuple(one.name for one in roster if animated and one.name in animated.names)
    frames = animated.pictures if animated and animate else None
    return RenderClips(prompts=prompts, roster=tuple(roster), first_frames=frames, animate=animate, **options)


def labelled_pairs(
    prompts: WritePrompts,
    *,
    roster: Sequence[Generator],
    jury: Sequence[Juror],
    policy: Family,
    buckets: Buckets,
    samples: Mapping[str, int],
    per_prompt: int | None,
    focus: Sequence[str],
    resources: Resources,
    quota: Mapping[str, int] | None = None,
    animated: Animated | None = None,
    judging: Resources | None = None,
    encoding: Resources | None = None,
    weights: Mapping[str, float] | None = None,
    ranking: int = 0,
    dtype: Literal["float32", "bfloat16"] = "float32",
    texts: Sequence[str] = (),
    encoded_rows: int = 512,
) -> LabelledPairs:
    """prompts -> render -> pair -> judge -> label -> arena, and encode.

    policy: the generator whose encoders make the latents; samples: pictures per prompt by a generator's name, one where it
    is not named; focus: generators all of whose pairs are kept; per_prompt: most pairs per prompt beside those; resources:
    of the row-wise stages that hold a model, unless judging and encoding have their own; weights: of the jury's dimensions
    where several decide; ranking: pictures per question of the jurors that rank, 0 for two; quota: most pairs by a
    generator's name; animated: generators of the roster that make clips of a picture; dtype: of the encoders; texts:
    encoded beside prompts; encoded_rows: latents and texts per file of `encode`.
    """
    pictures = _rendered(prompts, roster, animated, samples=dict(samples), resources=resources)
    pairs = PairSamples(pictures=pictures, per_prompt=per_prompt, focus=tuple(focus), quota=dict(quota or {}))
    votes = _votes(pairs, pictures, jury, ranking=ranking, resources=judging or resources)
    labels = Label(pairs=pairs, votes=votes, weights=dict(weights or {}))
    encoded = Encode(
        pairs=pairs,
        pictures=pictures,
        encoders=Encoders(family=policy),
        buckets=buckets,
        texts=tuple(texts),
        dtype=dtype,
        shard_rows=encoded_rows,
        resources=encoding or resources,
    )
    return LabelledPairs(prompts, pictures, pairs, labels, Arena(labels=labels), encoded)


def _votes(
    pairs: PairSamples, pictures: Pictures, jury: Sequence[Juror], *, ranking: int, resources: Resources
) -> Judge | RankedVotes:
    """The jury's votes on the pairs; with `ranking`, those of jurors that rank are read off rankings of so many."""
    asked = {"pairs": pairs, "pictures": pictures, "resources": resources}
    ranking_jurors = tuple(juror for juror in jury if ranking and juror.ranks)
    others = tuple(juror for juror in jury if juror not in ranking_jurors)
    judged = Judge(**asked, jury=others) if others else None
    if judged is not None and not ranking_jurors:
        return judged
    return RankedVotes(pairs=pairs, rankings=Rank(**asked, jury=ranking_jurors, most=ranking), judged=judged)


def evaluated(
    prompts: WritePrompts,
    arms: Sequence[Generator],
    *,
    jury: Sequence[Juror],
    scorers: Sequence[Scorer] = (),
    held_out_jury: Sequence[Juror] = (),
    weights: Mapping[str, float] | None = None,
    animated: Animated | None = None,
    seed: int = 0,
    resources: Resources,
    judging: Resources | None = None,
) -> Evaluate:
    """Held-out prompts -> render -> pair -> judge -> label, and score -> evaluate.

    arms: the first is the baseline; all get the same prompts and seeds. held_out_jury: jurors that judge here only.
    judging: resources of jurors and scorers where they differ from the generators'.
    """
    shown = _rendered(
        prompts,
        arms,
        animated,
        splits=("evaluation",),
        seeds="shared",
        seed=seed,
        resources=resources,
        label=EVALUATION,
    )
    pairs = PairSamples(pictures=shown, baseline=arms[0].name, label=EVALUATION)

    def judged(jurors: Sequence[Juror], label: str) -> Label:
        votes = Judge(pairs=pairs, pictures=shown, jury=tuple(jurors), resources=judging or resources, label=label)
        return Label(pairs=pairs, votes=votes, weights=dict(weights or {}), label=label)

    scores = ()
    if scorers:
        given = {"pictures": shown, "prompts": prompts, "scorers": tuple(scorers)}
        scores = (ScoreSamples(**given, resources=judging or resources, label=EVALUATION),)
    return Evaluate(
        prompts=prompts,
        pictures=shown,
        baseline=arms[0].name,
        scores=scores,
        jury=judged(jury, EVALUATION),
        held_out_jury=judged(held_out_jury, HELD_OUT) if held_out_jury else None,
        seed=seed,
    )
