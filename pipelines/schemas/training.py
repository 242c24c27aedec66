"""Tables of training: examples, reference errors, accuracies; curves are in `schemas.curves`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RewardAccuracy:
    """Pair accuracy of the reward model at one noise level, on held-out prompts."""

    t: float  # in [0, 1]; 1 is noise
    accuracy: float  # share of the decided pairs whose winner has the higher score
    low: float  # 95 % interval by resampling prompts
    high: float
    pairs: int  # decided ones
    accuracy_with_ties: float  # share of all pairs called right as win, tie or loss, at the threshold that suits them best
    tie_threshold: float  # score differences of at most this size are called ties there; negative where none is
    pairs_with_ties: int  # all pairs, ties among them


@dataclass(frozen=True)
class RewardBand:
    """Mean pair accuracy of the reward model over a band of noise levels, on the decided pairs of held-out prompts."""

    dimension: str
    band: str  # low (t = .001 to .401), high (.501 to .901), or all of these ten
    accuracy: float
    low: float  # 95 % interval by resampling prompts, each with its pairs at all times of the band
    high: float
    pairs: int


@dataclass(frozen=True)
class RewardScore:
    """What the reward model gave both members of one held-out pair, under one noise at one time."""

    pair: str  # the example's id
    t: float  # in [0, 1]; 1 is noise
    dimension: str
    winner: float  # logit; of a tie, picture A
    loser: float


@dataclass(frozen=True)
class NoisedScore:
    """What a scorer of pictures gave both members of one held-out pair, noised and decoded."""

    id: str
    pair: str  # the example's id
    prompt_id: str
    t: float  # in [0, 1]; 1 is noise
    scorer: str
    dimension: str
    shown: str  # x_t: the noised latents were decoded; x_0: what the generator predicts from them
    tie: bool
    winner: float | None  # on the scorer's own scale; of a tie, of picture A; None where there is no score
    loser: float | None


@dataclass(frozen=True)
class Example:
    """One pair to learn from: which latents, which text, how sure."""

    id: str  # the pair's id
    prompt_id: str
    text: str
    winner: str  # id of an Encoded latent; for a tie, of A
    loser: str
    winner_flipped: str | None  # the same with left and right exchanged, where that was encoded
    loser_flipped: str | None
    prompt: str  # id of an Encoded text
    generator_winner: str
    generator_loser: str
    tie: bool
    frames: int
    height: int
    width: int
    agreement: float  # share of the jury that said so, in [0, 1]; no probability of being right
    probability: float | None  # that the label is right, from a jury calibrated on people's labels; None without
    gap: float | None  # posterior gap of the order above, 0 or more; None for ties, without an arena, or of an unrated side
    reward_winner: float | None  # the picture's own, in standard deviations of single scores; None without scores
    reward_loser: float | None


@dataclass(frozen=True)
class MeasuredReference:
    """The frozen reference's error on one example under one of its fixed draws of noise and time."""

    id: str
    example: str
    draw: int  # 0, 1, … below the number of draws
    winner: float  # per-sample mean squared error, fp32
    loser: float


@dataclass(frozen=True)
class RolloutState:
    """One state of an online training's rollout with the candidates for its next latent that are learnt from.

    The lists have one entry per candidate, in one order. TAPO's state has two latents, of the branch that is to win and of
    the one that is to lose, with a candidate each.
    """

    id: str  # round, prompt, start and step, which no other state shares
    round: int  # counted from 0
    prompt: str  # id of the encoded text
    start: int  # number of the start noise within its prompt
    step: int  # of the sampler, counted from the noise end
    t: float  # in [0, 1]; 1 is noise
    t_next: float  # the candidates' own time
    score: list[float]  # of the candidates, or of the finished sample that came of them; NaN where a reward failed
    value: list[float]  # an advantage; or +1 for the better and -1 for the worse
    old: list[float]  # log-probability under the policy that drew it, mean over elements
    reference: list[float]  # the same under the reference; empty where the method does not read it
    used: bool  # whether it is learnt from
