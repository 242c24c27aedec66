"""Stage `render`: every generator of the roster on every training caption; one picture a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import pyarrow as pa
from pydantic import Field, field_validator

from actors.media import encode_png
from actors.protocols import LoadedSampler, Sampler
from actors.resident import Resident
from infra.config import ConfigError
from infra.dag.stage import Inputs, Places, RowStage, RunInputs, Worker
from infra.identity import group_of, key_of, row_id, seed_of
from infra.store.tables import Image
from pipelines.miniature.generators import Generator
from pipelines.schemas.samples import Picture
from pipelines.stages.prompts import Prompts
from pipelines.stages.sources import Pictures


class Renderer:
    """Cells (id, prompt_id, text, generator, sample, seed) to pictures, rows of `row`."""

    def __init__(self, samplers: Sequence[Sampler], *, row: type, resident: int = 1) -> None:
        self.samplers = list(samplers)
        self.row = row
        self.resident = resident

    def open(self, device: str, places: Places) -> None:
        """Models load when the first cell asks for them."""
        self.models = Resident(self.samplers, load=lambda sampler: sampler.load(device), resident=self.resident)

    def run(self, cells: pa.Table) -> list[Any]:
        """One row a cell, in order; neighbouring cells of one generator are one batch."""
        rows = cells.to_pylist()
        pictures: list[Image] = []
        start = 0
        while start < len(rows):
            stop = start
            while stop < len(rows) and rows[stop]["generator"] == rows[start]["generator"]:
                stop += 1
            sampler: LoadedSampler = self.models.get(rows[start]["generator"])
            part = rows[start:stop]
            pictures += [encode_png(p) for p in sampler.sample([r["text"] for r in part], [r["seed"] for r in part])]
            start = stop
        return [self.row(**row, image=picture) for row, picture in zip(rows, pictures, strict=True)]


class Render(RowStage, Pictures):
    """Prompts in; a picture for each (training prompt, generator, sample) out.

    The seed is a hash of (prompt, generator, sample): it does not depend on the batch, the worker or what else is rendered.
    """

    name: ClassVar = "render"
    row: ClassVar = Picture

    prompts: Prompts
    roster: tuple[Generator, ...]
    samples: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    "Pictures a generator makes of each prompt, by its name; one where it is not named."

    @field_validator("roster")
    @classmethod
    def _distinct(cls, roster: tuple[Generator, ...]) -> tuple[Generator, ...]:
        names = [generator.name for generator in roster]
        if len(roster) < 2 or len(set(names)) != len(names):
            raise ValueError(f"render needs at least two generators with distinct names, got {names}; change the roster")
        return roster

    def cells(self, inputs: Inputs) -> pa.Table:
        """Columns id, prompt_id, text, generator, sample, seed."""
        prompts = inputs.table(self.prompts, ["id", "text", "split"]).to_pylist()
        names = {generator.name: key_of(generator) for generator in self.roster}
        rows = []
        for prompt in prompts:
            if prompt["split"] != "train":
                continue
            for generator, identity in names.items():
                group = group_of(generator, prompt["id"])
                for sample in range(self.samples.get(generator, 1)):
                    rows.append(
                        {
                            "id": row_id(group, self.name, self.version, prompt["text"], identity, sample),
                            "prompt_id": prompt["id"],
                            "text": prompt["text"],
                            "generator": generator,
                            "sample": sample,
                            "seed": seed_of(prompt["text"], generator, sample),
                        }
                    )
        if not rows:
            raise ConfigError("render needs training prompts, got none; raise --prompts")
        return pa.Table.from_pylist(rows)

    def worker(self, inputs: RunInputs) -> Worker:
        """A renderer with the whole roster, loaded one by one."""
        del inputs
        return Renderer(self.roster, row=Picture, resident=self.resources.resident)
