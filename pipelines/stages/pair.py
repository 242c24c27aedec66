"""Stage `pair`: which two pictures or clips of a prompt are shown to the jury."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from infra.dag.stage import Context, Inputs, TableStage
from infra.identity import row_id
from pipelines.algorithms.pairing.combinations import chosen_pairs, matched_pairs, within_quota
from pipelines.schemas.votes import Pair
from pipelines.stages.sources import Pairing, Pictures


class PairSamples(TableStage, Pairing):
    """Pictures or clips in; pairs of one prompt's out, which is A and which is B drawn by hash."""

    name: ClassVar = "pair"
    version: ClassVar = 2
    row: ClassVar = Pair
    cheap: ClassVar = True

    pictures: Pictures
    "Rendered or imported."
    per_prompt: int | None = Field(None, ge=1)
    "Most pairs per prompt outside the focus, chosen by hash; all combinations by default."
    focus: tuple[str, ...] = ()
    "Generators all of whose pairs among themselves are kept: those a policy learns from, its own pictures first."
    within_generator: bool = True
    "Whether two samples of the same generator are compared too."
    quota: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    "Most pairs of the whole set in which a generator takes part, by its name; others have no limit."
    baseline: str | None = None
    "Generator whose samples every other generator's samples of the same number are compared with, and nothing else."

    @model_validator(mode="after")
    def _one_rule(self) -> PairSamples:
        if self.baseline is not None and (self.focus or self.per_prompt is not None):
            raise ValueError("pair: with a baseline neither focus nor per_prompt has an effect; leave them out")
        if self.baseline is not None and self.pictures.makers and self.baseline not in self.pictures.makers:
            raise ValueError(f"pair: baseline {self.baseline!r} is none of {', '.join(self.pictures.makers)}")
        if self.pictures.makers and (unknown := sorted(self.quota.keys() - self.pictures.makers.keys())):
            raise ValueError(f"pair: quota names {unknown[0]!r}, which is none of {', '.join(self.pictures.makers)}")
        return self

    def _of_prompt(self, pictures: list[dict[str, Any]]) -> list[Pair]:
        rows = {row["id"]: row for row in pictures}
        generators = {name: row["generator"] for name, row in rows.items()}
        if self.baseline is not None:
            numbered = {name: (row["generator"], row["sample"]) for name, row in rows.items()}
            chosen = matched_pairs(numbered, baseline=self.baseline)
        else:
            options: dict[str, Any] = {"focus": self.focus, "within_generator": self.within_generator}
            chosen = chosen_pairs(generators, beyond=self.per_prompt, **options)
        pairs = [
            Pair(
                id=row_id(rows[a]["prompt_id"], self.name, self.version, a, b),
                prompt_id=rows[a]["prompt_id"],
                text=rows[a]["text"],
                picture_a=a,
                picture_b=b,
                generator_a=generators[a],
                generator_b=generators[b],
            )
            for a, b in chosen
        ]
        return sorted(pairs, key=lambda pair: pair.id)

    def run(self, context: Context) -> Iterator[Pair]:
        """Pairs in the order of prompt ids."""
        columns = ["id", "prompt_id", "text", "generator", "sample"]
        by_prompt: dict[str, list[dict[str, Any]]] = {}
        for picture in context.table(self.pictures, columns).to_pylist():
            by_prompt.setdefault(picture["prompt_id"], []).append(picture)
        found = [pair for prompt_id in sorted(by_prompt) for pair in self._of_prompt(by_prompt[prompt_id])]
        yield from self._within_quota(found) if self.quota else found

    def _within_quota(self, pairs: list[Pair]) -> list[Pair]:
        generators = {pair.picture_a: pair.generator_a for pair in pairs}
        generators |= {pair.picture_b: pair.generator_b for pair in pairs}
        kept = set(within_quota([(pair.picture_a, pair.picture_b) for pair in pairs], generators, quota=self.quota))
        return [pair for pair in pairs if (pair.picture_a, pair.picture_b) in kept]

    def expected_rows(self, inputs: Inputs) -> int | None:
        """Counted by the plan, which runs this cheap stage."""
        del inputs
        return None
