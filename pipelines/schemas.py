"""Every table of Salon: one frozen row dataclass each, in the order of the DAG.

A field's comment gives its unit or range. `infra.tables` turns a class into its Arrow schema; the schema in a file must
equal it. Ids are content ids (`infra.identity.row_id`): a hash of everything that determines the row, led by its group (who
made it, then the prompt), so that neighbours in a table are computed by one model and belong to neighbouring prompts.
"""

from __future__ import annotations

from dataclasses import dataclass

from infra.tables import Image, Video


@dataclass(frozen=True)
class Prompt:
    """A caption and what it asks for."""

    id: str
    text: str
    task: str  # GenEval's six: single, two, counting, colours, position, attribution
    split: str  # train | evaluation; disjoint sets of texts
    expectation: str  # canonical JSON of the scene asked for; jurors never see it


@dataclass(frozen=True)
class Picture:
    """One generator's answer to one prompt."""

    id: str
    prompt_id: str
    text: str
    generator: str
    sample: int  # 0, 1, … within (prompt, generator)
    seed: int  # hash of (prompt, generator, sample), in [0, 2^63)
    image: Image


@dataclass(frozen=True)
class Clip:
    """One generator's clip for one prompt."""

    id: str
    prompt_id: str
    text: str
    generator: str
    sample: int
    seed: int
    video: Video


@dataclass(frozen=True)
class Pair:
    """Two pictures of one prompt, to be compared."""

    id: str
    prompt_id: str
    text: str
    picture_a: str  # id of a Picture
    picture_b: str
    generator_a: str
    generator_b: str


@dataclass(frozen=True)
class Vote:
    """One juror's answer to one pair in one order, as given."""

    id: str
    pair_id: str
    juror: str
    order: str  # ab | ba: which picture was shown first
    raw: str  # the answer's text, untouched
    choice: str  # a | b | tie | unparsable, in terms of the pair, not of the position
    score: float | None  # log-odds that a is better than b; None where unparsable


@dataclass(frozen=True)
class Preference:
    """The jury's word on one pair."""

    id: str  # the pair's id
    prompt_id: str
    text: str
    picture_a: str
    picture_b: str
    generator_a: str
    generator_b: str
    choice: str  # a | b | tie
    agreement: float  # share of the jurors' debiased votes that equal `choice`, in [0, 1]
    score: float  # mean over jurors of the two orders' mean log-odds of a over b; 0 where no juror gave one
    votes_a: int
    votes_b: int
    votes_tie: int
    votes_unparsable: int


@dataclass(frozen=True)
class DimensionMargin:
    """By how much one picture of a pair is better in one dimension (VideoAlign's VQ, MQ, TA, …)."""

    pair_id: str
    dimension: str
    margin: float  # reward of a minus reward of b; +1, 0, -1 where people only said a, same, b


@dataclass(frozen=True)
class JurorStatistics:
    """The audit of one juror; shares in [0, 1]."""

    juror: str
    votes: int
    position_bias: float  # P(first shown is chosen | decided) - 1/2, in [-1/2, 1/2]
    tie_rate: float
    failure_rate: float  # unparsable answers
    contradiction_rate: float  # pairs on which the two orders name different pictures
    agreement_with_panel: float  # with the majority of the other jurors, both decided


@dataclass(frozen=True)
class Rating:
    """One generator's strength."""

    generator: str
    mu: float  # TrueSkill scale: starts at 25
    sigma: float  # starts at 25/3
    score: float  # mu - 3 sigma
    games: int
    wins: int
    losses: int
    ties: int
    bt_strength: float  # Bradley-Terry log-strength, mean zero
    bt_low: float  # 95 % bootstrap interval
    bt_high: float


@dataclass(frozen=True)
class Match:
    """One game of the arena, at its place in the order."""

    position: int
    pair_id: str
    generator_a: str
    generator_b: str
    choice: str  # a | b | tie


@dataclass(frozen=True)
class Gap:
    """Posterior expectation of winner's minus loser's quality (ArenaPO, theorem 1)."""

    pair_id: str
    gap: float  # > 0, on the rating's scale


@dataclass(frozen=True)
class RewardAccuracy:
    """Pair accuracy of the reward model at one noise level, held-out prompts."""

    t: float  # in [0, 1]; 1 is noise
    accuracy: float
    low: float  # 95 % Wilson interval
    high: float
    pairs: int


@dataclass(frozen=True)
class RewardStep:
    """One optimiser step of the reward model."""

    step: int
    loss: float
    accuracy: float


@dataclass(frozen=True)
class Encoded:
    """One picture or clip as latents, or one text as what the denoiser reads of it."""

    id: str
    kind: str  # latent | text
    source: str  # id of the picture or clip; of a text, the hash of it
    text: str  # of its prompt
    frames: int  # 1 for a picture, 0 for a text
    height: int  # pixels, after the crop to the bucket; 0 for a text
    width: int
    tensors: bytes  # safetensors; `latent`, or the names the generator's family gives its conditions


@dataclass(frozen=True)
class EncodedSize:
    """Encoded, without its tensors: what `examples` looks up."""

    id: str
    kind: str
    source: str
    frames: int
    height: int
    width: int


@dataclass(frozen=True)
class Example:
    """One pair to learn from: which latents, which text, how sure."""

    id: str  # the pair's id
    prompt_id: str
    text: str
    winner: str  # id of an Encoded latent; for a tie, of A
    loser: str
    prompt: str  # id of an Encoded text
    generator_winner: str
    generator_loser: str
    tie: bool
    frames: int
    height: int
    width: int
    agreement: float  # share of the jury that said so, in [0, 1]
    gap: float  # the arena's posterior gap, 0 or more; 0 without an arena
    reward_winner: float  # only differences within a pair and their spread over the data mean something
    reward_loser: float


@dataclass(frozen=True)
class ReferenceError:
    """The frozen reference's error on one example under one of its fixed draws of noise and time."""

    id: str
    example: str
    draw: int  # 0, 1, … below the number of draws
    winner: float  # per-sample mean squared error, fp32
    loser: float


@dataclass(frozen=True)
class TuneStep:
    """One optimiser step of preference tuning."""

    step: int
    loss: float
    implicit_accuracy: float  # share of pairs the policy prefers the right way round, equals half
    winner_error: float  # mean squared error of the policy's prediction
    loser_error: float
    error_drift: float | None  # policy's minus reference's error, mean of both: above 0 it denoises worse
    drift: float | None  # mean squared difference to the reference's predictions, where there are any
    alpha: float | None  # of an automatic polynomial term
    kl: float | None  # batch mean that Diffusion-KTO subtracts
    gradient_norm: float  # before clipping
    learning_rate: float


@dataclass(frozen=True)
class Evaluation:
    """Base and tuned on one held-out caption with one seed."""

    id: str
    prompt_id: str
    text: str
    task: str
    sample: int
    seed: int
    base: Image
    tuned: Image
    base_strict: bool
    tuned_strict: bool
    base_partial: float  # in [0, 1]
    tuned_partial: float
    base_quality: float  # in [0, 1]
    tuned_quality: float
    jury: float  # 1: the jury prefers tuned; 0.5: tie; 0: base
    base_reward: float
    tuned_reward: float


@dataclass(frozen=True)
class EvaluationSummary:
    """One measure over one task (or all), with a paired bootstrap interval of the difference."""

    measure: str  # strict | partial | quality | reward | win_rate_jury | win_rate_reward
    task: str  # a task, or overall
    base: float
    tuned: float
    difference: float  # tuned - base; for win rates: rate - 0.5
    low: float
    high: float
    n: int  # pictures a model


@dataclass(frozen=True)
class TrainingStep:
    """A hundred steps of a training from nothing (recipe zoo)."""

    step: int  # the last of them, counted from 1
    loss: float  # their mean


@dataclass(frozen=True)
class ZooScore:
    """The exact checker's word on one shipped generator."""

    model: str
    guidance: float  # 1 is none
    task: str  # a task, or overall: the mean of the six
    strict: float  # share of pictures that show exactly what was asked
    pictures: int


@dataclass(frozen=True)
class GateReason:
    """Why the gate passed."""

    reason: str  # a measure, its difference with interval, and what that says


@dataclass(frozen=True)
class Page:
    """One file of the report."""

    path: str  # relative to the artifact's weights folder
    bytes: int
