"""Stage `reference_errors`: what the frozen reference makes of every example under its fixed draws of noise and time.

A preference loss needs of the reference nothing but its errors. When noise and time come from seeds of the pair, they can
be computed once: training then runs without a reference in memory and without its forward passes, and any number of
trainings (other losses, other learning rates) share them.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from infra.dag.stage import Inputs, Places, RowStage, RunInputs, Stage, Worker
from infra.identity import key_of, row_id
from pipelines.algorithms.diffusion.flow import TimeSampler, UniformTimes
from pipelines.algorithms.diffusion.path import per_sample_error
from pipelines.models.adapter import Full
from pipelines.models.families.base import Family
from pipelines.schemas.training import ReferenceError
from pipelines.stages.examples import Examples
from pipelines.stages.sources import Trained, origin
from pipelines.training.data import COLUMNS, Latents, Opened, Randomness, fixed_seed
from pipelines.training.preference import PolicySpec, noised_pair


class Measuring:
    """The worker: the reference on both members of each example."""

    def __init__(self, spec: PolicySpec, encoded: Any, randomness: Randomness, *, micro_batch: int) -> None:
        self.spec, self.encoded = spec, encoded
        self.randomness, self.micro_batch = randomness, micro_batch

    def open(self, device: str, places: Places) -> None:
        """Loads the reference."""
        import torch

        self.device = torch.device(device)
        self.policy = self.spec.load(self.device, reference="none")
        self.latents = Latents(self.encoded)

    def run(self, cells: pa.Table) -> list[ReferenceError]:
        """One row a cell, in order."""
        rows = cells.to_pylist()
        opened = Opened(rows, self.latents)
        shapes = opened.groups or [0] * len(rows)
        found: dict[int, ReferenceError] = {}
        for shape in sorted(set(shapes)):
            places = [place for place, one in enumerate(shapes) if one == shape]
            for start in range(0, len(places), self.micro_batch):
                found |= self._measured(opened, places[start : start + self.micro_batch])
        return [found[place] for place in range(len(rows))]

    def _measured(self, opened: Opened, places: list[int]) -> dict[int, ReferenceError]:
        import torch

        batch = opened.batch(places, device=self.device)
        seeds = [fixed_seed(row["example"], row["draw"], seed=self.randomness.seed) for row in batch.rows]
        sample = noised_pair(self.policy, batch, seeds, randomness=self.randomness)
        condition = {name: torch.cat([value, value]) for name, value in batch.condition.items()}
        with torch.no_grad():
            answer = self.policy.predict(self.policy.model, sample, condition=condition, guidance=self.spec.guidance)
        winner, loser = per_sample_error(answer, target=sample.target).cpu().chunk(2)
        rows = zip(places, batch.rows, winner.tolist(), loser.tolist(), strict=True)
        return {place: ReferenceError(row["id"], row["example"], row["draw"], one, two) for place, row, one, two in rows}


class ReferenceErrors(RowStage):
    """Examples in; the reference's errors on each, `draws` rows an example."""

    name: ClassVar = "reference_errors"
    row: ClassVar = ReferenceError
    in_cells: ClassVar = ("draws",)

    examples: Examples
    policy: Family
    start: Trained | None = None
    "A previous tune, which is then the reference."
    dtype: Literal["float32", "bfloat16"] = "float32"
    times: TimeSampler = UniformTimes()
    guidance: float = Field(1.0, ge=0)
    "Guidance scale given to a guidance-distilled denoiser."
    draws: int = Field(8, ge=1)
    "Different (noise, time) an example; training goes through them by turns."
    seed: int = Field(0, ge=0)
    "Of the draws."
    micro_batch: int = Field(16, ge=1, exclude=True)
    "Examples a forward pass."
    shard_rows: int = Field(512, ge=1)
    "Rows a file and a call."

    def cells(self, inputs: Inputs) -> pa.Table:
        """An example's columns, and the number of the draw; ties are measured too."""
        settings = [self.policy, self.start, self.dtype, self.times, self.seed, self.guidance]
        maker = key_of([self.name, self.version, *settings])
        examples = inputs.table(self.examples, COLUMNS)
        named = zip(*(examples[name].to_pylist() for name in ("id", "winner", "loser", "prompt")), strict=True)
        # Columns, not rows: there may be millions of them.
        ids = [row_id(row[0], maker, *row, draw) for row in named for draw in range(self.draws)]
        many = examples.take(pa.array(np.repeat(np.arange(examples.num_rows), self.draws)))
        example = many["id"]
        many = many.set_column(many.column_names.index("id"), "id", pa.array(ids, pa.string()))
        many = many.append_column("example", example)
        return many.append_column("draw", pa.array(np.tile(np.arange(self.draws), examples.num_rows)))

    def reads(self) -> list[Stage]:
        """The previous tunes that the reference stands on."""
        found: list[Stage] = []
        before = self.start
        while before is not None:
            found.append(before)
            before = before.start
        return found

    def looks_up(self) -> dict[str, Stage]:
        """The worker reads latents and texts by id."""
        return dict.fromkeys(("winner", "loser", "prompt"), self.examples.encoded)

    def worker(self, inputs: RunInputs) -> Worker:
        """The reference, and the latents."""
        family, start = origin(self.policy, self.start, inputs)
        spec = PolicySpec(family, Full(), start, dtype=self.dtype, guidance=self.guidance)
        randomness = Randomness(self.times, self.draws, self.seed)
        return Measuring(spec, inputs.lookup(self.examples.encoded), randomness, micro_batch=self.micro_batch)

    def expected_rows(self, inputs: Inputs) -> int | None:
        """`draws` an example."""
        examples = self.examples.expected_rows(inputs)
        return None if examples is None else examples * self.draws
