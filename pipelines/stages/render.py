"""Stages `render` and `render_clips`: every generator of the roster on every prompt of the chosen splits.

The seed of a picture is a hash of its prompt, its seed group and its number, never of a batch or a worker. By default each
generator is a seed group of its own; with `seeds="shared"` all generators get the same seeds, so that two arms of an
evaluation differ in their weights alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from actors.media import clip_timing, encode_mp4, encode_png
from actors.resident import Resident
from infra.config import Config, ConfigError
from infra.dag.foretold import GpuTime
from infra.dag.stage import Inputs, Lookup, Places, RowStage, RunInputs, Stage, Worker
from infra.identity import group_of, key_of, row_id, seed_of
from pipelines.models.generators.generator import Generator, OpenGenerator, Pixels, Request
from pipelines.schemas.prompts import Split
from pipelines.schemas.samples import Clip, Picture
from pipelines.stages.prompts import WritePrompts
from pipelines.stages.sources import Pictures

CELL = ("id", "prompt_id", "text", "generator", "sample", "seed")


class RenderWorker:
    """Cells (id, prompt_id, text, generator, sample, seed) to pictures or clips, rows of `row`."""

    def __init__(
        self, roster: Sequence[Generator], *, row: type, resident: int, first_frames: Lookup | None = None
    ) -> None:
        self.roster = {generator.name: generator for generator in roster}
        self.first_frames = first_frames  # pictures by id, where cells name the one that a clip begins with
        self.row = row
        self.resident = resident

    def open(self, device: str, places: Places) -> None:
        """A generator loads when its first cell comes."""
        self.opened: Resident[Generator, OpenGenerator] = Resident(
            self.roster.values(), load=lambda generator: generator.open(device, places), resident=self.resident
        )

    def run(self, cells: pa.Table) -> list[Any]:
        """A row or an exception for each cell, in order; neighbouring cells of one generator are sampled together."""
        found: list[Any] = []
        pictures = self._pictures(cells)
        for name, group in groupby(cells.to_pylist(), key=lambda cell: cell["generator"]):
            part = list(group)
            requests = [Request(cell["text"], cell["seed"], pictures.get(cell.get("first_frame"))) for cell in part]
            opened, most = self.opened.get(name), self.roster[name].together or len(part)
            for start in range(0, len(part), most):  # encoded call by call: a hundred clips in pixels fill a machine
                results = opened.sample(requests[start : start + most])
                found += [self._row(c, result) for c, result in zip(part[start : start + most], results, strict=True)]
        return found

    def _pictures(self, cells: pa.Table) -> dict[str, bytes]:
        """The encoded first frames of these cells by id."""
        if self.first_frames is None:
            return {}
        ids = sorted(set(cells["first_frame"].drop_null().to_pylist()))
        images = self.first_frames.take(ids, ["image"])["image"].to_pylist() if ids else []
        return {name: image["bytes"] for name, image in zip(ids, images, strict=True)}

    def _row(self, cell: dict[str, Any], result: Pixels | Exception) -> Any:
        if isinstance(result, Exception):
            return result
        try:
            return self.row(**cell, **encoded(result, self.roster[cell["generator"]]))
        except ValueError as error:
            return error


def encoded(pixels: Pixels, generator: Generator) -> dict[str, Any]:
    """Columns of a picture or clip: the file, and its measures; raises ValueError for pixels that are neither."""
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[-1] != 3 or not pixels.size:
        raise ValueError(
            f"{generator.name} must give uint8[frames, height, width, 3], got {pixels.dtype}{list(pixels.shape)}"
        )
    size = dict(zip(("height", "width"), pixels.shape[1:3], strict=True))
    if generator.medium == "video":
        video = encode_mp4(pixels, fps=generator.fps or 0)
        frames = {"frames": len(pixels), "fps": clip_timing(video.bytes)[0] or None}
        return {"video": video} | size | frames
    if len(pixels) > 1:
        raise ValueError(f"{generator.name} must give one frame, got {len(pixels)}")
    return {"image": encode_png(pixels[0])} | size


class Render(RowStage, Pictures):
    """Prompts in; a picture for each (prompt, generator, sample) out.

    Adding prompts, a generator or samples computes the new pictures only. `RenderClips` is the same for clips.
    """

    name: ClassVar = "render"
    version: ClassVar = 2
    row: ClassVar = Picture
    in_cells: ClassVar = ("roster", "samples")

    prompts: WritePrompts
    roster: tuple[Generator, ...]
    "Generators with distinct names, all of pictures."
    samples: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    "Pictures per prompt, by the generator's name; a generator that is not named makes one."
    splits: tuple[Split, ...] = ("train",)
    "Splits of the prompts that are rendered."
    seeds: Literal["generator", "shared"] = "generator"
    "Whether each generator has seeds of its own, or all of them the same."
    seed: int = Field(0, ge=0)
    "Another number gives other pictures of the same prompts."

    @model_validator(mode="after")
    def _possible(self) -> Render:
        names = [generator.name for generator in self.roster]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"{self.name} needs generators with distinct names, got {names}; change the roster")
        if unknown := sorted(set(self.samples) - set(names)):
            raise ValueError(f"samples names {unknown[0]!r}, which is not in the roster; it has {', '.join(names)}")
        for generator in self.roster:
            if generator.medium != self.medium:
                raise ValueError(
                    f"{self.name} makes rows of medium {self.medium!r}, but {generator.name} makes {generator.medium!r}; "
                    "use RenderClips for clips and Render for pictures"
                )
        if not self.splits:
            raise ValueError("splits is empty; name at least one split of the prompts")
        return self

    @property
    def makers(self) -> Mapping[str, Config]:
        return {generator.name: generator for generator in self.roster}

    def cells(self, inputs: Inputs) -> pa.Table:
        """Columns id, prompt_id, text, generator, sample, seed."""
        prompts = inputs.table(self.prompts, ["id", "text", "split"]).to_pylist()
        keys = {generator.name: key_of(generator) for generator in self.roster}
        rows = [
            self._cell(prompt, generator, key=key, sample=sample)
            for prompt in prompts
            if prompt["split"] in self.splits
            for generator, key in keys.items()
            for sample in range(self.samples.get(generator, 1))
        ]
        self._require(len(rows))
        return pa.Table.from_pylist(rows)

    def cell_count(self, inputs: Inputs) -> int:
        """Each prompt of the splits as often as all generators render it."""
        splits = inputs.table(self.prompts, ["split"])["split"].to_pylist()
        each = sum(self.samples.get(generator.name, 1) for generator in self.roster)
        return self._require(each * sum(split in self.splits for split in splits))

    def gpu_time(self, inputs: Inputs, rows: int | None) -> GpuTime | None:
        """By published rates of the generators, each with its share of the rows; those without one are named."""
        del inputs
        if rows is None:
            return None
        shares = {generator.name: self.samples.get(generator.name, 1) for generator in self.roster}
        rates = {generator.name: generator.published() for generator in self.roster}
        known = {name: rate for name, rate in rates.items() if rate is not None}
        if not known:
            return None
        seconds = sum(rate * shares[name] for name, (rate, _) in known.items()) * rows / sum(shares.values())
        devices = ", ".join(f"{name} on {device}" for name, (_, device) in known.items())
        rest = ", ".join(name for name in rates if name not in known)
        basis = f"published rates: {devices}" + (f"; unknown and not counted: {rest}" if rest else "")
        return GpuTime(seconds, basis, complete=not rest)

    def _require(self, count: int) -> int:
        if not count:
            raise ConfigError(f"{self.node} needs prompts of split {' or '.join(self.splits)}, got none; ask for more")
        return count

    def _cell(self, prompt: dict[str, Any], generator: str, *, key: str, sample: int) -> dict[str, Any]:
        group = group_of(generator, prompt["id"])
        seed = seed_of(prompt["text"], generator if self.seeds == "generator" else "", self.seed, sample)
        return {
            "id": row_id(group, self.name, self.version, prompt["text"], key, sample, seed),
            "prompt_id": prompt["id"],
            "text": prompt["text"],
            "generator": generator,
            "sample": sample,
            "seed": seed,
        }

    def worker(self, inputs: RunInputs) -> Worker:
        """The whole roster, of which `resources.resident` generators stay loaded."""
        del inputs
        return RenderWorker(self.roster, row=self.row, resident=self.resources.resident)


class RenderClips(Render):
    """Prompts in; a clip for each (prompt, generator, sample) out, as MP4.

    With `first_frames`, generators of pictures to clips are given a picture of the same prompt to begin with. A prompt
    without one, for it could not be rendered, gets no clip of theirs.
    """

    name: ClassVar = "render_clips"
    row: ClassVar = Clip
    clips: ClassVar = True
    in_cells: ClassVar = (*Render.in_cells, "first_frames", "animate")

    first_frames: Pictures | None = None
    "Pictures of the same prompts; of several pictures of one prompt, the first by generator and sample."
    animate: tuple[str, ...] = ()
    "Names of the generators that begin with a picture; the others read the text alone."

    @model_validator(mode="after")
    def _animated(self) -> RenderClips:
        if (self.first_frames is None) != (not self.animate):
            raise ValueError("first_frames and animate belong together: pictures, and who begins with them; give both")
        if self.first_frames is not None and self.first_frames.clips:
            raise ValueError(f"first_frames must be pictures, and {self.first_frames.node} makes clips")
        if strange := sorted(set(self.animate) - {generator.name for generator in self.roster}):
            raise ValueError(f"animate names {strange[0]!r}, which is not in the roster")
        return self

    def cells(self, inputs: Inputs) -> pa.Table:
        """Columns of `Render.cells`, and first_frame: the id of a picture, or null."""
        first: dict[str, str] = {}
        if self.first_frames is not None:
            columns = ["prompt_id", "generator", "sample", "id"]
            rows = inputs.table(self.first_frames, columns).sort_by([(name, "descending") for name in columns])
            first = dict(zip(rows["prompt_id"].to_pylist(), rows["id"].to_pylist(), strict=True))
        table = super().cells(inputs)
        cells = table.to_pylist()
        begun = [cell for cell in cells if cell["generator"] not in self.animate or cell["prompt_id"] in first]
        if not begun:
            raise ConfigError(f"{self.node}: no prompt has a picture to begin with; render the same splits of the prompts")
        for cell in begun:
            frame = first[cell["prompt_id"]] if cell["generator"] in self.animate else None
            cell["first_frame"] = frame
            cell["id"] = row_id(cell["id"], cell["id"], frame) if frame else cell["id"]
        return pa.Table.from_pylist(begun, schema=pa.schema([*table.schema, ("first_frame", pa.string())]))

    def looks_up(self) -> Mapping[str, Stage]:
        """The worker reads the first frames by id."""
        return {"first_frame": self.first_frames} if self.first_frames is not None else {}

    def worker(self, inputs: RunInputs) -> Worker:
        """The whole roster, and the pictures that clips begin with."""
        frames = inputs.lookup(self.first_frames) if self.first_frames is not None else None
        return RenderWorker(self.roster, row=self.row, resident=self.resources.resident, first_frames=frames)
