"""From prompts to labels and latents: the part of the loop that every recipe of rendered pictures shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from infra.dag.stage import Resources
from pipelines.models.families.base import Family
from pipelines.models.generators.generator import Generator
from pipelines.models.jurors.juror import Juror
from pipelines.stages.arena import Arena
from pipelines.stages.encode import Encode, Encoders
from pipelines.stages.judge import Judge
from pipelines.stages.label import Label
from pipelines.stages.pair import PairSamples
from pipelines.stages.prompts import WritePrompts
from pipelines.stages.render import Render
from pipelines.training.buckets import Buckets


@dataclass(frozen=True)
class LabelledPairs:
    """The nodes from prompts to labels and latents."""

    prompts: WritePrompts
    pictures: Render
    pairs: PairSamples
    labels: Label
    arena: Arena
    encoded: Encode


def labelled_pairs(
    prompts: WritePrompts,
    *,
    roster: Sequence[Generator],
    jury: Sequence[Juror],
    policy: Family,
    buckets: Buckets,
    samples: Mapping[str, int],
    per_prompt: int,
    focus: Sequence[str],
    resources: Resources,
) -> LabelledPairs:
    """prompts -> render -> pair -> judge -> label -> arena, and encode.

    policy: the generator whose encoders make the latents; samples: pictures per prompt by a generator's name, one where it
    is not named; focus: generators all of whose pairs are kept; per_prompt: most pairs per prompt beside those; resources:
    of the row-wise stages that hold a model.
    """
    pictures = Render(prompts=prompts, roster=tuple(roster), samples=dict(samples), resources=resources)
    pairs = PairSamples(pictures=pictures, per_prompt=per_prompt, focus=tuple(focus))
    votes = Judge(pairs=pairs, pictures=pictures, jury=tuple(jury), resources=resources)
    labels = Label(pairs=pairs, votes=votes)
    encoded = Encode(
        pairs=pairs,
        pictures=pictures,
        encoders=Encoders(family=policy),
        buckets=buckets,
        shard_rows=512,
        resources=resources,
    )
    return LabelledPairs(prompts, pictures, pairs, labels, Arena(labels=labels), encoded)
