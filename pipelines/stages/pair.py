"""Stage `pair`: which two pictures of a prompt are shown to the jury."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any, ClassVar

from pydantic import Field

from infra.dag.stage import Context, Inputs, TableStage
from infra.identity import row_id, seed_of
from pipelines.schemas.votes import Pair
from pipelines.stages.render import Render


class PairSamples(TableStage):
    """Pictures in; pairs of one prompt's pictures out, which is A and which is B drawn by hash."""

    name: ClassVar = "pair"
    row: ClassVar = Pair
    cheap: ClassVar = True

    pictures: Render
    per_prompt: int | None = Field(None, ge=1)
    "At most so many pairs a prompt outside the focus, chosen by hash; all combinations by default."
    focus: tuple[str, ...] = ()
    "Generators all of whose pairs among themselves are kept: those a policy learns from, its own pictures first."
    within_generator: bool = True
    "Whether two samples of the same generator are compared too."

    def _of_prompt(self, pictures: list[dict[str, Any]]) -> list[Pair]:
        pairs = []
        for one, other in combinations(sorted(pictures, key=lambda p: p["id"]), 2):
            if one["generator"] == other["generator"] and not self.within_generator:
                continue
            first, second = (one, other) if seed_of(one["id"], other["id"]) % 2 else (other, one)
            pairs.append(
                Pair(
                    id=row_id(one["prompt_id"], self.name, self.version, first["id"], second["id"]),
                    prompt_id=one["prompt_id"],
                    text=one["text"],
                    picture_a=first["id"],
                    picture_b=second["id"],
                    generator_a=first["generator"],
                    generator_b=second["generator"],
                )
            )
        pairs.sort(key=lambda pair: pair.id)
        near = [pair for pair in pairs if {pair.generator_a, pair.generator_b} <= set(self.focus)]
        far = [pair for pair in pairs if not {pair.generator_a, pair.generator_b} <= set(self.focus)]
        return sorted(near + far[: self.per_prompt], key=lambda pair: pair.id)

    def run(self, context: Context) -> Iterator[Pair]:
        """Pairs in the order of prompt ids."""
        columns = ["id", "prompt_id", "text", "generator"]
        by_prompt: dict[str, list[dict[str, Any]]] = {}
        for picture in context.table(self.pictures, columns).to_pylist():
            by_prompt.setdefault(picture["prompt_id"], []).append(picture)
        for prompt_id in sorted(by_prompt):
            yield from self._of_prompt(by_prompt[prompt_id])

    def expected_rows(self, inputs: Inputs) -> int | None:
        """Counted by the plan, which runs this cheap stage."""
        del inputs
        return None
