"""Tables of comparisons: pairs, votes, preferences, ratings."""

from __future__ import annotations

from dataclasses import dataclass


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
    """One juror's answer about one pair in one order and one dimension, as given."""

    id: str
    pair_id: str
    juror: str
    order: str  # ab | ba: which picture was shown first
    raw: str  # the answer's text, untouched; of a vote read off a ranking: the id of its row in `rank`
    choice: str  # a | b | tie | unparsable, in terms of the pair, not of the position
    score: float | None  # log-odds that a is better, or expected grade of a minus that of b; None where there is none
    dimension: str = "overall"  # what was asked about


@dataclass(frozen=True)
class RankingAnswer:
    """One juror's answer to the question of how several pictures of a prompt rank, as given."""

    id: str
    prompt_id: str
    juror: str
    order: str  # "1", "2", ...: an order drawn by hash; "1 reversed", ...: the same backwards
    pictures: list[str]  # ids, as they were shown
    raw: str  # the answer's text, untouched
    ranks: list[int]  # of each picture as it was shown; 1 is best, equal ranks are ties; empty where unparsable


@dataclass(frozen=True)
class Preference:
    """The preference between the two pictures of a pair, by a jury or by people."""

    id: str  # the pair's id
    prompt_id: str
    text: str
    picture_a: str
    picture_b: str
    generator_a: str
    generator_b: str
    choice: str  # a | b | tie
    agreement: float  # share of the jurors' debiased votes that equal `choice`, in [0, 1]; no probability of being right
    score: float  # mean over jurors of the two orders' mean log-odds of a over b; 0 where no juror gave one
    votes_a: int
    votes_b: int
    votes_tie: int
    votes_unparsable: int
    probability: float | None = None  # that `choice` is right, from a panel calibrated on people's labels; None without


@dataclass(frozen=True)
class DimensionMargin:
    """By how much one picture of a pair is better in one dimension (VideoAlign's VQ, MQ, TA, …)."""

    pair_id: str
    dimension: str
    margin: float  # reward of a minus reward of b; +1, 0, -1 where people or jurors only chose a, same, b


@dataclass(frozen=True)
class PairSubset:
    """The part of its data set that an imported pair belongs to."""

    pair_id: str
    subset: str


@dataclass(frozen=True)
class JurorStatistics:
    """The audit of one juror in one dimension; shares in [0, 1], None where there was nothing to count."""

    juror: str
    votes: int
    position_bias: float | None  # P(first shown is chosen | decided) - 1/2, in [-1/2, 1/2]
    tie_rate: float | None  # ties among readable answers
    failure_rate: float | None  # unparsable answers among all answers
    contradiction_rate: float | None  # pairs answered differently in the two orders
    agreement_with_panel: float | None  # with the plurality of the other jurors; None for a jury of one
    dimension: str = "overall"  # what was asked about


@dataclass(frozen=True)
class Rating:
    """Strength of one generator."""

    generator: str
    mu: float  # TrueSkill scale: starts at 25
    sigma: float  # starts at 25/3
    mu_spread: float | None  # standard deviation of mu - mean(mu) over orders of the games; None if only one was played
    score: float  # mu - 3 sigma
    games: int
    wins: int
    losses: int
    ties: int
    bt_strength: float  # Bradley-Terry log-strength, mean zero
    bt_low: float  # 95 % bootstrap interval over prompts
    bt_high: float


@dataclass(frozen=True)
class Match:
    """One game of the arena, at its place in the order."""

    position: int
    pair_id: str
    generator_a: str
    generator_b: str
    choice: str  # a | b | tie
