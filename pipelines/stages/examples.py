"""Stage `examples`: preferences and latents to training examples: who won, by how much, how sure, and in which shape.

Several dimensions become one by linear scalarisation (Liu et al., 2025, section 5.2), or one dimension alone decides
(single-dimension alignment). All is computed in columns: there may be millions of pairs.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float
from pydantic import Field

from infra.config import ConfigError
from infra.dag.stage import Context, Inputs, TableStage
from infra.store.tables import schema_of
from pipelines.algorithms.preference.scalarisation import Scalarisation, scalar_margins, scale_of
from pipelines.schemas.training import Example
from pipelines.stages.arena import Arena
from pipelines.stages.encode import LATENT, SHAPE, Encode
from pipelines.stages.sources import Labels, Scored

LABEL_COLUMNS = [
    "id",
    "prompt_id",
    "text",
    "picture_a",
    "picture_b",
    "generator_a",
    "generator_b",
    "choice",
    "agreement",
    "probability",
]
OVERALL = "overall"
FILE_ROWS = 250_000


@dataclass(frozen=True)
class PairOutcomes:
    """Which picture of each pair is better."""

    lead: Float[np.ndarray, " pairs"]
    """Above 0 where it is a, below where it is b, 0 for a tie."""
    agreement: Float[np.ndarray, " pairs"]
    """How sure, in [0, 1]."""
    known: Bool[np.ndarray, " pairs"]
    """Whether every dimension that was asked for is there."""


class Examples(TableStage):
    """Labels and encoded pictures in; one row per labelled pair out, ties too (a loss says whether it can use them)."""

    name: ClassVar = "examples"
    version: ClassVar = 2
    row: ClassVar = Example

    labels: Labels
    encoded: Encode
    arena: Arena | None = None
    "Whose ratings the gaps are made from, in the order that the labels or the alignment decide; without it there are none."
    alignment: Scalarisation | None = None
    "Which dimensions decide, with which weights; None: the overall label."
    scores: Scored | None = None
    "Scores of single pictures: rewards of reward-weighted regression, and margins of the dimensions that they have."
    max_error_share: float = Field(0.05, ge=0, le=1, exclude=True)
    "The stage fails when more than this share of the pairs is quarantined."

    @property
    def has_probability(self) -> bool:
        """Whether an example says how probable it is that its label is right: of a sum of dimensions nobody knows."""
        return self.alignment is None and self.labels.has_probability

    def run(self, context: Context) -> Iterator[pa.Table]:
        """Tables of examples, in the order of their ids."""
        labels = context.table(self.labels, LABEL_COLUMNS).combine_chunks().sort_by("id")
        if not labels.num_rows:
            raise ConfigError("examples: there is no label; run the stages before it with more pairs")
        verdicts = self._verdicts(context, labels)
        context.metric("without_dimension", int((~verdicts.known).sum()))
        if not verdicts.known.any():
            raise ConfigError(f"examples: no pair has every dimension of {', '.join(self._wanted)}; check --dimensions")
        columns = self._columns(context, labels, verdicts)
        there = functools.reduce(pc.and_, [pc.is_valid(columns[name]) for name in ("winner", "loser", "prompt")])
        usable = pc.and_(pa.array(verdicts.known), there)
        self._quarantine(context, columns.filter(pc.and_(pa.array(verdicts.known), pc.invert(there))))
        found = columns.filter(usable).select(schema_of(Example).names).cast(schema_of(Example))
        for start in range(0, max(found.num_rows, 1), FILE_ROWS):
            yield found.slice(start, FILE_ROWS)

    def _columns(self, context: Context, labels: pa.Table, verdicts: PairOutcomes) -> pa.Table:
        """The columns of an Example, ids of what was not encoded null, and `refused`: whether the pair has no shape."""
        shapes = self.encoded.shapes(labels, context)
        sizes = context.table(self.encoded, name="sizes").combine_chunks()
        first = pa.array(verdicts.lead >= 0)
        columns = {name: labels[name] for name in ("id", "prompt_id", "text")}
        texts = labels["text"].combine_chunks().dictionary_encode()
        ids = pa.array([self.encoded.text_id(text) for text in texts.dictionary.to_pylist()], pa.string())
        columns["prompt"] = _among(ids, sizes["id"].combine_chunks()).take(texts.indices)
        latents = sizes.filter(pc.equal(sizes["kind"], LATENT))
        for flipped in (False, True):
            mine = latents.filter(pc.equal(latents["flipped"], flipped))
            names = _named(mine["source"], mine)
            for letter in "ab":
                place = pc.index_in(_named(shapes[f"picture_{letter}"], shapes), names)
                columns[f"latent_{letter}{'_flipped' if flipped else ''}"] = mine["id"].combine_chunks().take(place)
        rewards = self._rewards(context, labels)
        columns |= {f"generator_{letter}": labels[f"generator_{letter}"] for letter in "ab"} | rewards
        for name, given in (("{}", "latent_{}"), ("{}_flipped", "latent_{}_flipped"), ("generator_{}", "generator_{}")):
            _turn(columns, name, given, first)
        _turn(columns, "reward_{}", "reward_{}", first)
        columns |= {name: shapes[name] for name in SHAPE}
        columns |= {"tie": pa.array(verdicts.lead == 0), "agreement": pa.array(verdicts.agreement)}
        known = labels["probability"] if self.alignment is None else pa.nulls(labels.num_rows, pa.float64())
        columns["probability"] = known.cast(pa.float64())
        columns["gap"] = self._gaps(context, columns)
        columns["refused"] = pc.equal(shapes["frames"], 0)
        return pa.table(columns)

    @property
    def _wanted(self) -> list[str]:
        """Dimensions with a weight."""
        return [] if self.alignment is None else [name for name, weight in self.alignment.weights.items() if weight]

    def _verdicts(self, inputs: Inputs, labels: pa.Table) -> PairOutcomes:
        if self.alignment is None:
            # The panel decides; how far its members' log-odds are apart does not turn its word round.
            word = labels["choice"]
            lead = pc.if_else(pc.equal(word, "a"), 1.0, pc.if_else(pc.equal(word, "b"), -1.0, 0.0)).to_numpy()
            return PairOutcomes(lead, labels["agreement"].to_numpy(), np.ones(len(lead), dtype=bool))
        margins = {name: self._margins(inputs, labels, name) for name in self._wanted}
        known = np.logical_and.reduce([np.isfinite(margin) for margin in margins.values()])
        given = {name: margin[known] for name, margin in margins.items()}
        found = scalar_margins(given, scalarisation=self.alignment)
        lead, agreement = np.zeros(len(known)), np.zeros(len(known))
        lead[known], agreement[known] = found.lead, found.agreement
        return PairOutcomes(lead, agreement, known)

    def _margins(self, inputs: Inputs, labels: pa.Table, dimension: str) -> np.ndarray:
        """Reward of a minus reward of b in standard deviations of single scores; +-1 and 0 of people as they are; NaN."""
        if self.scores is not None and len(values := self._values(inputs, dimension)[1]):
            sides = [self._value(inputs, labels[f"picture_{letter}"], dimension) for letter in "ab"]
            return (sides[0] - sides[1]) / (float(np.std(values)) or 1.0)
        rows = inputs.table(self.labels, name="dimensions")
        rows = rows.filter(pc.equal(rows["dimension"], dimension)).combine_chunks()
        place = pc.index_in(labels["id"].combine_chunks(), rows["pair_id"].combine_chunks())
        margins = pc.cast(rows["margin"].combine_chunks().take(place), pa.float64()).to_numpy(zero_copy_only=False)
        return margins / scale_of(margins[np.isfinite(margins)])

    def _values(self, inputs: Inputs, dimension: str) -> tuple[pa.Array, np.ndarray]:
        """Samples and their scores in a dimension, where there is a number."""
        assert self.scores is not None, "asked only where there are scores"
        rows = inputs.table(self.scores, ["sample", "scorer", "dimension", "value"])
        rows = rows.filter(pc.and_(pc.equal(rows["dimension"], dimension), pc.is_valid(rows["value"]))).combine_chunks()
        scorers = rows["scorer"].unique().to_pylist()
        if len(scorers) > 1:
            raise ConfigError(f"examples: {', '.join(sorted(scorers))} all score {dimension!r}; give scores of one of them")
        return rows["sample"].combine_chunks(), rows["value"].to_numpy()

    def _value(self, inputs: Inputs, pictures: pa.ChunkedArray, dimension: str) -> np.ndarray:
        """The score of each of these pictures; NaN where there is none."""
        samples, values = self._values(inputs, dimension)
        place = np.asarray(pc.fill_null(pc.index_in(pictures.combine_chunks(), samples), -1))
        return np.append(values, np.nan)[place]

    def _rewards(self, inputs: Inputs, labels: pa.Table) -> dict[str, pa.Array]:
        """reward_a and reward_b: each picture's own, standardised over all pictures by dimension and weighted; or null."""
        if self.scores is None:
            return {f"reward_{letter}": pa.nulls(labels.num_rows, pa.float64()) for letter in "ab"}
        weights = (
            {OVERALL: 1.0} if self.alignment is None else {name: self.alignment.weights[name] for name in self._wanted}
        )
        found = {}
        for letter in "ab":
            total = np.zeros(labels.num_rows)
            for name, weight in weights.items():
                _, values = self._values(inputs, name)
                if not len(values):
                    raise ConfigError(f"examples: the scores have no dimension {name!r}; check --dimensions, or the scorer")
                mine = self._value(inputs, labels[f"picture_{letter}"], name)
                total += weight / sum(weights.values()) * (mine - np.mean(values)) / (float(np.std(values)) or 1.0)
            found[f"reward_{letter}"] = pa.array(total, from_pandas=True)
        return found

    def _gaps(self, inputs: Inputs, columns: dict[str, pa.Array]) -> pa.Array:
        """The gap of every pair in its final order; null for ties and where a side is not rated."""
        if self.arena is None:
            return pa.nulls(len(columns["tie"]), pa.float64())
        rated = inputs.table(self.arena, ["generator", "mu", "sigma"]).to_pylist()
        strengths = {row["generator"]: (row["mu"], row["sigma"]) for row in rated}
        winners, losers = (columns[f"generator_{side}"].to_pylist() for side in ("winner", "loser"))
        gaps = pa.array(self.arena.gaps(winners, losers=losers, strengths=strengths), pa.float64())
        return pc.if_else(columns["tie"], pa.scalar(None, pa.float64()), gaps)

    def _quarantine(self, context: Context, pairs: pa.Table) -> None:
        """Tells of every pair that has no latents, naming where it stands in the user's files."""
        places = self.labels.places(pairs["id"].combine_chunks()) if pairs.num_rows else {}
        shortest = min(self.encoded.buckets.frames)
        for pair, refused in zip(pairs["id"].to_pylist(), pairs["refused"].to_pylist(), strict=True):
            if refused:
                rate = self.encoded.buckets.rate
                told = f" at {rate:g} frames per second" if rate else ""
                why = (
                    f"one of its clips has fewer than the {shortest} frames{told} of the shortest length; add a shorter one"
                )
            else:
                why = "one of its pictures or its text was not encoded; the errors of encode say why"
            context.quarantine(pair, f"{places[pair]}: {why}" if pair in places else why)

    def expected_rows(self, inputs: Inputs) -> int | None:
        """One per labelled pair."""
        return self.labels.expected_rows(inputs)


def _named(source: pa.ChunkedArray, shapes: pa.Table) -> pa.Array:
    """One string for a picture in a shape."""
    parts = [source, *(shapes[name].cast(pa.string()) for name in SHAPE)]
    named = pc.binary_join_element_wise(*parts, " ")
    return named.combine_chunks() if isinstance(named, pa.ChunkedArray) else named


def _among(ids: pa.Array, known: pa.Array) -> pa.Array:
    """These ids, null where they are not known."""
    return pc.if_else(pc.is_in(ids, known), ids, pa.scalar(None, pa.string()))


def _turn(columns: dict[str, pa.Array], name: str, given: str, first: pa.Array) -> None:
    """Puts the columns of a and b, `given`, in the place of winner and loser; `first`: whether a is the winner."""
    a, b = (columns.pop(given.format(letter)) for letter in "ab")
    columns[name.format("winner")] = pc.if_else(first, a, b)
    columns[name.format("loser")] = pc.if_else(first, b, a)
