"""Stage `examples`: preferences and latents to training examples: who won, by how much, how sure, and of which shape.

Scores of several dimensions become one by linear scalarisation (Liu et al., 2025, section 5.1), or one dimension alone
decides (single-dimension alignment). A pair whose two latents differ in shape cannot share noise and is quarantined.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from infra.config import ConfigError
from infra.dag.stage import Inputs, Places, RowStage, RunInputs, Worker
from pipelines.algorithms.preference.scalarisation import Scalarisation, scalar_labels, scalar_scores
from pipelines.schemas.training import Example
from pipelines.stages.arena import Arena
from pipelines.stages.encode import LATENT, TEXT, Encode, text_source
from pipelines.stages.sources import Labels

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
    "score",
]
SHAPE = ("frames", "height", "width")
LEAST = 1e-9
AT_ONCE = 50_000


@dataclass(frozen=True)
class Verdict:
    """What is known of a pair."""

    margin: float
    """Reward of a minus reward of b; 0 for a tie."""
    agreement: float
    probability: float | None = None
    """That the label is right; None where several dimensions decide together, or no jury was calibrated."""
    lacking: str = ""
    """A dimension that was asked for and is not there."""


class Matcher:
    """The worker: everything is in the cells; checks that the two can be compared."""

    def open(self, device: str, places: Places) -> None:
        """Nothing to load."""

    def run(self, cells: pa.Table) -> list[Example]:
        """One row a cell, in order."""
        return [self._example(cell) for cell in cells.to_pylist()]

    @staticmethod
    def _example(cell: dict[str, Any]) -> Example:
        if lacking := cell.pop("lacking"):
            raise ValueError(f"it has no margin in dimension {lacking!r}, which the alignment needs")
        shapes = {side: tuple(cell.pop(f"{side}_{name}") for name in SHAPE) for side in ("winner", "loser")}
        for side, shape in shapes.items():
            if None in shape:
                raise ValueError(f"the {side}'s latents are not there: it was quarantined in encode")
        if shapes["winner"] != shapes["loser"]:
            winner, loser = (" x ".join(map(str, shapes[side])) for side in ("winner", "loser"))
            raise ValueError(f"its pictures differ in size: winner {winner}, loser {loser} (frames x height x width)")
        return Example(**cell, **dict(zip(SHAPE, shapes["winner"], strict=True)))


class Examples(RowStage):
    """Labels and encoded pictures in; one row a labelled pair out, ties too (a loss says whether it can use them)."""

    name: ClassVar = "examples"
    version: ClassVar = 2
    row: ClassVar = Example

    labels: Labels
    encoded: Encode
    arena: Arena | None = None
    "Whose ratings the gaps are made from, in the order that the labels or the alignment decide; without it there are none."
    alignment: Scalarisation | None = None
    "Which dimensions decide, with which weights; None: the overall label."
    shard_rows: int = Field(4096, ge=1)
    "Rows a file and a call."

    @property
    def has_probability(self) -> bool:
        """Whether an example says how probable it is that its label is right: of a sum of dimensions nobody knows."""
        return self.alignment is None and self.labels.has_probability

    def cells(self, inputs: Inputs) -> pa.Table:
        """The example, and the shapes of both sides; None where a picture was not encoded."""
        labels = inputs.table(self.labels, LABEL_COLUMNS)
        if not labels.num_rows:
            raise ConfigError("examples: there is no label; run the stages before it with more pairs")
        sizes = inputs.table(self.encoded, name="sizes")
        shapes = zip(*(sizes[name].to_pylist() for name in SHAPE), strict=True)
        shape_of = dict(zip(sizes["id"].to_pylist(), shapes, strict=True))
        verdicts, strengths = self._verdicts(inputs, labels), self._strengths(inputs)
        settings = {kind: self.encoded.settings(kind) for kind in (LATENT, TEXT)}
        pieces = []
        for batch in labels.to_batches(max_chunksize=AT_ONCE):  # a million labels are not held as a million dicts
            found = []
            for row in batch.to_pylist():
                verdict = verdicts[row["id"]]
                first, second = ("a", "b") if verdict.margin >= 0 else ("b", "a")
                cell: dict[str, Any] = {name: row[name] for name in ("id", "prompt_id", "text")}
                cell["prompt"] = self.encoded.id_of(TEXT, text_source(row["text"]), settings=settings[TEXT])
                for side, letter in (("winner", first), ("loser", second)):
                    name = self.encoded.id_of(LATENT, row[f"picture_{letter}"], settings=settings[LATENT])
                    cell |= {side: name, f"generator_{side}": row[f"generator_{letter}"]}
                    cell |= {f"{side}_{n}": v for n, v in zip(SHAPE, shape_of.get(name, (None,) * 3), strict=True)}
                cell |= {"tie": verdict.margin == 0, "agreement": verdict.agreement}
                cell["probability"] = verdict.probability
                rewards = {"reward_winner": abs(verdict.margin) / 2, "reward_loser": -abs(verdict.margin) / 2}
                found.append(cell | rewards | {"lacking": verdict.lacking})
            pieces.append(pa.Table.from_pylist(self._with_gaps(found, strengths)))
        return pa.concat_tables(pieces, promote_options="permissive")

    def _verdicts(self, inputs: Inputs, labels: pa.Table) -> dict[str, Verdict]:
        """Who is better by how much, by pair."""
        pairs = labels["id"].to_pylist()
        if self.alignment is None:
            sign = {"a": 1.0, "b": -1.0, "tie": 0.0}
            given = zip(
                *(labels[name].to_pylist() for name in ("choice", "score", "agreement", "probability")), strict=True
            )
            # The label says who wins, the strength of its score by how much.
            own = (Verdict(sign[choice] * max(abs(score), LEAST), sure, p) for choice, score, sure, p in given)
            return dict(zip(pairs, own, strict=True))
        wanted = [name for name, weight in self.alignment.weights.items() if weight]
        margins: dict[str, dict[str, float]] = {pair: {} for pair in pairs}
        for row in inputs.table(self.labels, name="dimensions").to_pylist():
            margins[row["pair_id"]][row["dimension"]] = row["margin"]
        lacking = {pair: next((n for n in wanted if n not in given), "") for pair, given in margins.items()}
        whole = [pair for pair in margins if not lacking[pair]]
        by_dimension = {name: np.array([margins[pair][name] for pair in whole]) for name in wanted}
        # Dimensions are brought to one scale before they are added: each has a root mean square of 1.
        scaled = {name: m / (float(np.sqrt(np.mean(m**2))) or 1.0) if len(m) else m for name, m in by_dimension.items()}
        total = scalar_scores(scaled, scalarisation=self.alignment)
        words = {name: ["a" if m > 0 else "b" if m < 0 else "tie" for m in given] for name, given in scaled.items()}
        agreement = scalar_labels(words, scalarisation=self.alignment).agreement
        found = {pair: Verdict(0.0, 0.0, lacking=lacking[pair]) for pair in margins if lacking[pair]}
        for pair, margin, agreed in zip(whole, total.tolist(), agreement.tolist(), strict=True):
            found[pair] = Verdict(margin if abs(margin) > LEAST else 0.0, agreed)
        return found

    def _strengths(self, inputs: Inputs) -> dict[str, tuple[float, float]]:
        """(mu, sigma) of the generators that the arena rated."""
        if self.arena is None:
            return {}
        table = inputs.table(self.arena, ["generator", "mu", "sigma"]).to_pylist()
        return {row["generator"]: (row["mu"], row["sigma"]) for row in table}

    def _with_gaps(self, cells: list[dict[str, Any]], strengths: dict[str, tuple[float, float]]) -> list[dict[str, Any]]:
        """The cells with the gap of their final order; None for ties and where a side is not rated."""
        if self.arena is None:
            return [cell | {"gap": None} for cell in cells]
        sides = ([cell[f"generator_{side}"] for cell in cells] for side in ("winner", "loser"))
        gaps = self.arena.gaps(next(sides), losers=next(sides), strengths=strengths)
        return [cell | {"gap": None if cell["tie"] else gap} for cell, gap in zip(cells, gaps, strict=True)]

    def worker(self, inputs: RunInputs) -> Worker:
        """Checks; no model."""
        del inputs
        return Matcher()

    def expected_rows(self, inputs: Inputs) -> int | None:
        """One a labelled pair."""
        return self.labels.expected_rows(inputs)
