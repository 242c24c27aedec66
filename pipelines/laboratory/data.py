"""What a trial learns from: examples with wrong or conflicting labels, gaps that follow them, and trivial pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from infra.config import ConfigError
from infra.identity import seed_of
from pipelines.algorithms.rating.gaussian import rate
from pipelines.laboratory.contenders import Data
from pipelines.stages.arena import Arena

SIDES = (("winner", "loser"), ("generator_winner", "generator_loser"))
HIGHEST = 2**63  # above every seed


def flipped(pair: str, *, noise: float, seed: int) -> bool:
    """Whether a pair's label is turned round: with probability `noise`, and at every higher noise too."""
    return seed_of("label noise", seed, pair) < noise * HIGHEST


def noisy(examples: pa.Table, *, noise: float, seed: int) -> pa.Table:
    """Winner and loser exchanged where the label is flipped; rewards go with the label, ties stay."""
    pairs, ties = examples["id"].to_pylist(), examples["tie"].to_pylist()
    turned = pa.array([not tie and flipped(pair, noise=noise, seed=seed) for pair, tie in zip(pairs, ties, strict=True)])
    return _exchanged(examples, turned)


def _exchanged(examples: pa.Table, turned: pa.Array) -> pa.Table:
    """Winner and loser exchanged in some rows."""
    found = examples
    for names in SIDES:
        for name, other in (names, names[::-1]):
            column = pc.if_else(turned, examples[other], examples[name])
            found = found.set_column(found.column_names.index(name), name, column)
    return found


def dimensions_of(pixels: np.ndarray) -> tuple[float, ...]:
    """Light, colour and detail of a picture [channels, height, width]: tastes that have nothing to do with its caption."""
    pixels = pixels.reshape(pixels.shape[0], *pixels.shape[-2:])
    detail = np.abs(np.diff(pixels, axis=1)).mean() + np.abs(np.diff(pixels, axis=2)).mean()
    return float(pixels.mean()), float(pixels.std(axis=0).mean()), float(detail)


def conflicting(examples: pa.Table, *, noise: float, seed: int, tastes: Mapping[str, Sequence[float]]) -> pa.Table:
    """A share `noise` of the decided pairs gets the word of one dimension, drawn by hash, for its label.

    `tastes`: the values of every picture in each dimension; the higher is preferred. Where the dimension agrees with the
    jury nothing changes, as in data whose labels are each of another dimension.
    """
    columns = (examples[name].to_pylist() for name in ("id", "tie", "winner", "loser"))
    turned = []
    for pair, tie, winner, loser in zip(*columns, strict=True):
        chosen = seed_of("dimension", seed, pair) % len(tastes[winner])
        other = tastes[winner][chosen] < tastes[loser][chosen]
        turned.append(not tie and other and flipped(pair, noise=noise, seed=seed))
    return _exchanged(examples, pa.array(turned))


def with_gaps(examples: pa.Table, *, arena: Arena) -> pa.Table:
    """Gaps of these labels: the arena plays its matches again, since wrong labels mislead it as well."""
    columns = {name: examples[name].to_pylist() for name in ("id", "generator_winner", "generator_loser", "tie")}
    rows = sorted(zip(*columns.values(), strict=True), key=lambda row: seed_of("match", arena.seed, row[0]))
    matches = [row for row in rows if row[1] != row[2]]
    number = {name: n for n, name in enumerate(sorted({m[1] for m in matches} | {m[2] for m in matches}))}
    strengths = rate(
        [number[m[1]] for m in matches],
        second=[number[m[2]] for m in matches],
        choice=["tie" if m[3] else "a" for m in matches],
        players=len(number),
        options=arena.rating.model_copy(update={"orders": 1, "average": False}),
        generator=np.random.default_rng(arena.seed),
    )
    rated = {name: (strengths.mu[n], strengths.sigma[n]) for name, n in number.items()}
    gaps = arena.gaps(columns["generator_winner"], losers=columns["generator_loser"], strengths=rated)
    column = pa.array([None if tie else gap for gap, tie in zip(gaps, columns["tie"], strict=True)], pa.float64())
    return examples.set_column(examples.column_names.index("gap"), "gap", column)


def trivial(examples: pa.Table, *, seed: int) -> pa.Table:
    """Decided pairs, each with the loser of a pair of another prompt: what is wrong with it is plain to see.

    Losers go one pair on in an order drawn by hash, past the pairs of the same prompt; no gap belongs to such a pair. ViPO
    shuffles losers within batches. A trial meets a pair about once, so one order per seed gives the same kind of pairs.
    """
    examples = examples.filter(pc.invert(examples["tie"]))
    ids, prompts = examples["id"].to_pylist(), examples["prompt_id"].to_pylist()
    if len(set(prompts)) < 2:
        raise ConfigError("trivial pairs need decided pairs of two prompts at least; raise --prompts")
    order = sorted(range(len(ids)), key=lambda n: seed_of("trivial", seed, ids[n]))
    taken = np.empty(len(ids), dtype=np.int64)
    for place, row in enumerate(order):
        step = 1
        while prompts[order[(place + step) % len(order)]] == prompts[row]:
            step += 1
        taken[row] = order[(place + step) % len(order)]
    for name in ("loser", "generator_loser"):
        examples = examples.set_column(examples.column_names.index(name), name, examples[name].take(pa.array(taken)))
    return examples.set_column(examples.column_names.index("gap"), "gap", pa.nulls(len(ids), pa.float64()))


def material(
    examples: pa.Table,
    *,
    data: Data,
    near: tuple[str, ...],
    noise: float,
    seed: int,
    arena: Arena,
    tastes: Mapping[str, Sequence[float]] | None,
) -> pa.Table:
    """What one trial may learn from, ties included; `near`: the generators of near and trivial pairs.

    `tastes`: the dimensions that conflict with the jury's word at a noise level; None: labels are flipped.
    """
    if tastes is None:
        changed = noisy(examples, noise=noise, seed=seed)
    else:
        changed = conflicting(examples, noise=noise, seed=seed, tastes=tastes)
    found = with_gaps(changed, arena=arena)
    if data == "roster":
        return found
    known = pa.array(near, pa.string())
    for side in ("winner", "loser"):
        found = found.filter(pc.is_in(found[f"generator_{side}"], known))
    return trivial(found, seed=seed) if data == "trivial" else found
