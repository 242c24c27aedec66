"""Tables of the laboratory of claims, beside those of `schemas`."""

from __future__ import annotations

from dataclasses import dataclass

MEASURES = ("strict", "partial", "quality")
"""The exact checker's: what a picture is judged by, the one that claims are about first."""


@dataclass(frozen=True)
class Trial:
    """One method used as one would use it, once: every setting tried, one chosen, and its word on held-out captions."""

    id: str
    contender: str  # which method with which data; base: the generator as it is
    noise: float  # share of flipped labels it learnt from, in [0, 1]
    seed: int  # of its training and of which labels are flipped
    steps: int  # optimiser steps of a training, all phases
    tried: list[float]  # mean strict score of each setting's policy on the tuning captions; 0 where it diverged
    failed: int  # settings whose training diverged
    candidate: int  # the setting that was chosen
    settings: str  # its phases as JSON: method, learning rate, share of the steps
    pairs: int  # it learnt from
    diverged: str  # why the chosen setting's training ended early, as all did then; else empty
    implicit_accuracy: float | None  # mean of the last tenth of the last phase's steps
    strict: list[float]  # 1 or 0 a caption, in the captions' order; zeros where training diverged
    partial: list[float]  # credit for the parts of what was asked, in [0, 1]
    quality: list[float]  # clean drawing, whatever was asked, in [0, 1]


@dataclass(frozen=True)
class ClaimVerdict:
    """One claim at one noise level by one measure."""

    claim: str
    statement: str
    better: str  # the contender that is claimed to be better
    worse: str  # what it is compared with
    noise: float
    measure: str  # strict | partial | quality
    better_mean: float  # over captions and seeds
    worse_mean: float
    difference: float
    low: float  # 95 % interval over captions and seeds, choice of settings included
    high: float
    verdict: str  # holds | does not hold | undecided
    captions: int
    seeds: int  # training seeds both have
    diverged: int  # of the trials compared: their pictures count as wrong


@dataclass(frozen=True)
class ContenderScore:
    """One contender at one noise level: its chosen settings and its scores."""

    contender: str
    title: str
    noise: float
    settings: str  # JSON of the candidate that was chosen most often
    chosen: int  # seeds that chose it
    candidates: int  # that were tried: the tuning budget
    steps: int
    strict: float  # mean over captions and seeds
    partial: float
    quality: float
    seeds: int
    diverged: int
    tuning_diverged: int  # trainings that diverged, of candidates x seeds


@dataclass(frozen=True)
class KnownStrength:
    """The exact checker's word on one generator's pictures of training captions; nothing is trained on it."""

    generator: str
    strict: float
    partial: float
    quality: float
    pictures: int
    mu: float  # what the arena made of the jury's labels
    sigma: float
