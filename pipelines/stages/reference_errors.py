"""Stage `reference_errors`: what the frozen reference makes of every example under its fixed draws of noise and time.

A preference loss needs of the reference nothing but its errors. When noise and time come from seeds of the pair, they can
be computed once: training then runs without a reference in memory and without its forward passes, and any number of
trainings (other losses, other learning rates) share them.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from infra.config import ConfigError
from infra.dag.stage import Inputs, Places, RowStage, RunInputs, Stage, Worker
from infra.identity import key_of, row_id
from infra.store.tables import schema_of
from pipelines.algorithms.diffusion.flow import TimeSampler, UniformTimes
from pipelines.algorithms.diffusion.path import per_sample_error
from pipelines.models.adapter import Full, LoRA
from pipelines.models.families.base import Family
from pipelines.models.quantised import BasePrecision, require_frozen, require_quantiser
from pipelines.schemas.training import MeasuredReference
from pipelines.stages.examples import Examples
from pipelines.stages.sources import Trained, origin
from pipelines.training.arithmetic import Arithmetic
from pipelines.training.data import COLUMNS, Latents, OpenTrainingData
from pipelines.training.noise import NoiseDraws, fixed_seed
from pipelines.training.preference import PolicySpec

SCHEMA = schema_of(MeasuredReference)


class Measuring:
    """The worker: the reference on both members of each example."""

    def __init__(
        self,
        spec: PolicySpec,
        arithmetic: Arithmetic,
        encoded: Any,
        noise: NoiseDraws,
        *,
        empty: str,
        micro_batch: int,
    ) -> None:
        self.spec, self.arithmetic, self.encoded, self.noise = spec, arithmetic, encoded, noise
        self.empty, self.micro_batch = empty, micro_batch

    def open(self, device: str, places: Places) -> None:
        """Loads the reference."""
        import torch

        self.device = torch.device(device)
        self.policy = self.spec.load(self.device, reference="none")
        self.model = self.arithmetic.applied(self.policy.model, device=self.device)
        self.latents = Latents(self.encoded)

    def run(self, cells: pa.Table) -> pa.Table:
        """One row per cell, in order."""
        data = OpenTrainingData.of_table(cells.select(COLUMNS), self.latents, empty=self.empty)
        shapes = np.zeros(len(data), dtype=int) if data.groups is None else data.groups
        examples, draws = cells["example"].to_pylist(), cells["draw"].to_pylist()
        seeds = [fixed_seed(name, draw, seed=self.noise.seed) for name, draw in zip(examples, draws, strict=True)]
        found = np.empty((len(data), 2))
        for shape in np.unique(shapes):
            places = np.flatnonzero(shapes == shape)
            for start in range(0, len(places), self.micro_batch):
                part = places[start : start + self.micro_batch]
                found[part] = self._measured(data, part, [seeds[place] for place in part])
        columns = [cells["id"], cells["example"], cells["draw"], *found.T]
        return pa.Table.from_arrays([pa.array(c) if isinstance(c, np.ndarray) else c for c in columns], schema=SCHEMA)

    def _measured(self, data: OpenTrainingData, places: np.ndarray, seeds: list[int]) -> np.ndarray:
        """Errors of winner and loser, float[places, 2]."""
        import torch

        batch = self.noise.batch(data, places, seeds, device=self.device)  # pyright: ignore[reportArgumentType]
        sample = self.noise.noised(batch, seeds, loaded=self.policy.loaded)
        with torch.no_grad():
            answer = self.policy.predict(self.model, sample, condition=batch.both, guidance=self.spec.guidance)
        return per_sample_error(answer, target=sample.target).cpu().reshape(2, -1).T.numpy()


class ReferenceErrors(RowStage):
    """Examples in; the reference's errors on each, `draws` rows per example."""

    name: ClassVar = "reference_errors"
    row: ClassVar = MeasuredReference
    in_cells: ClassVar = ("draws",)

    examples: Examples
    policy: Family
    start: Trained | None = None
    "A previous tune, which is then the reference."
    arithmetic: Arithmetic = Arithmetic()
    "That of the training, of which the reference is the first policy."
    merged: bool = False
    "Whether a LoRA that the previous tune left is merged into the weights, as it is where all of them are trained."
    times: TimeSampler = UniformTimes()
    guidance: float = Field(1.0, ge=0)
    "Guidance scale given to a guidance-distilled denoiser."
    draws: int = Field(8, ge=1)
    "Different (noise, time) an example; training goes through them by turns."
    seed: int = Field(0, ge=0)
    "Seed of the draws."
    caption_dropout: float = Field(0.0, ge=0, lt=1)
    "Share of the draws whose text is replaced by the empty one."
    flips: bool = False
    "Whether half of the draws have left and right of both members exchanged."
    micro_batch: int = Field(16, ge=1, exclude=True)
    "Examples a forward pass."
    shard_rows: int = Field(512, ge=1)
    "Rows a file and a call."

    @model_validator(mode="after")
    def _possible(self) -> ReferenceErrors:
        require_frozen(self.arithmetic.base, Full() if self.merged else None)
        return self

    def require_here(self) -> None:
        """What quantises the base is installed."""
        require_quantiser(self.arithmetic.base)

    def require_base(self, wanted: BasePrecision) -> None:
        """Raises ConfigError where a tune that uses these errors has a base of another precision."""
        if wanted != self.arithmetic.base:
            raise ConfigError(
                f"tune: base_precision is {wanted}, but the cached reference errors are of a base that is "
                f"{self.arithmetic.base}; give both the same, or compute the errors again"
            )

    def require(self, **wanted: Any) -> None:
        """Raises ConfigError where a tune that uses these errors has other examples, another policy or other draws.

        wanted: the tune's own options by name; its examples and its start by key.
        """
        ours = {"examples": self.examples.key, "start": self.start and self.start.key, "draws_seed": self.seed}
        for name, theirs in wanted.items():
            mine = ours[name] if name in ours else getattr(self, name)
            if mine != theirs:
                raise ConfigError(f"tune: {name} = {theirs!r}, but the cached errors have {mine!r}; make them agree")

    def cells(self, inputs: Inputs) -> pa.Table:
        """An example's columns, and the number of the draw; ties are measured too."""
        settings = [self.policy, self.start, self.arithmetic, self.merged, self.times, self.seed, self.guidance]
        settings += [self.caption_dropout, self.flips]
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
        before = None if start is None else start.adapter
        # A LoRA of before stays beside the weights, or is merged as full training does; else nothing is added to measure.
        adapter = Full() if self.merged else before if isinstance(before, LoRA) else None
        spec = PolicySpec(
            family,
            adapter,
            start,
            dtype=self.arithmetic.weights,
            guidance=self.guidance,
            base_precision=self.arithmetic.base,
        )
        encoded = self.examples.encoded
        noise = NoiseDraws(self.times, self.draws, self.seed, self.caption_dropout, self.flips)
        reader = inputs.lookup(encoded)
        return Measuring(spec, self.arithmetic, reader, noise, empty=encoded.text_id(""), micro_batch=self.micro_batch)

    def expected_rows(self, inputs: Inputs) -> int | None:
        """`draws` an example."""
        examples = self.examples.expected_rows(inputs)
        return None if examples is None else examples * self.draws
