"""What training reads: examples in memory, latents and texts by id from the encoded artifact, noise from seeds.

A worker opens the artifact's files itself, so nothing of the size of the data goes through the launcher. Files smaller in
sum than the budget are read once and kept; larger data sets are read as needed, the next step's rows in the background.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from actors.training.draws import Draw
from infra.identity import seed_of
from infra.lazy import lazy
from infra.store.artifacts import RowReader
from pipelines.algorithms.diffusion.flow import TimeSampler
from pipelines.algorithms.preference.scalarisation import normalised

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")

COLUMNS = [
    "id",
    "winner",
    "loser",
    "prompt",
    "tie",
    "frames",
    "height",
    "width",
    "probability",
    "gap",
    "reward_winner",
    "reward_loser",
]  # of an Example: what training reads
MOST_BYTES = 4 * 2**30


@dataclass(frozen=True)
class Batch:
    """Examples of one shape, as tensors."""

    winners: torch.Tensor  # x_0 float[b, *shape]
    losers: torch.Tensor
    condition: dict[str, torch.Tensor]  # one row an example
    rows: list[dict[str, Any]]  # the Examples, without ids of latents
    size: tuple[int, int]  # (height, width) in pixels

    def column(self, name: str) -> torch.Tensor:
        """A numeric column of the examples, float[b]; NaN where a value is missing."""
        values = (row[name] for row in self.rows)
        return torch.tensor([math.nan if value is None else float(value) for value in values])


class Latents:
    """Encoded tensors by id, decoded once; the least recently used go when the budget is full. Safe for two threads."""

    def __init__(self, reader: RowReader, *, budget: int = MOST_BYTES) -> None:
        self.reader = reader
        self.budget = budget
        self.held = 0
        self.kept: OrderedDict[str, dict[str, torch.Tensor]] = OrderedDict()
        self.lock = threading.Lock()

    def preload(self, ids: Sequence[str]) -> None:
        """Reads everything now where it fits into the budget: each file once."""
        if sum(file.bytes for file in self.reader.files) <= self.budget:
            for start in range(0, len(ordered := sorted(set(ids))), 256):
                self.get(ordered[start : start + 256])

    def get(self, ids: Sequence[str]) -> dict[str, dict[str, torch.Tensor]]:
        """The tensors of these ids."""
        from safetensors.torch import load

        with self.lock:
            missing = sorted({name for name in ids if name not in self.kept})
            if missing:
                table = self.reader.take(missing, ["tensors"])
                for name, data in zip(missing, table["tensors"].to_pylist(), strict=True):
                    self.kept[name] = load(data)
                    self.held += len(data)
            found = {name: self.kept[name] for name in ids}
            for name in found:
                self.kept.move_to_end(name)
            while self.held > self.budget and len(self.kept) > len(found):
                _, gone = self.kept.popitem(last=False)
                self.held -= sum(value.nbytes for value in gone.values())
            return found


@dataclass(frozen=True)
class Materials:
    """The examples of a training run. Picklable: a file of examples and where the latents lie."""

    examples: Path
    encoded: RowReader

    @staticmethod
    def write(examples: pa.Table, path: Path) -> None:
        """The file that `open` reads: rewards are brought to mean 0 and deviation 1 over all members of all pairs."""
        names = ("reward_winner", "reward_loser")
        columns = np.split(normalised(np.concatenate([examples[name].to_numpy() for name in names])), 2)
        for name, column in zip(names, columns, strict=True):
            examples = examples.set_column(examples.column_names.index(name), name, pa.array(column))
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(examples.sort_by("id"), path)

    def open(self) -> Opened:
        """Reads the examples."""
        rows = pq.read_table(self.examples, columns=COLUMNS).to_pylist()
        latents = Latents(self.encoded)
        latents.preload([row[name] for row in rows for name in ("winner", "loser", "prompt")])
        return Opened(rows, latents)


@dataclass(frozen=True)
class Opened:
    """Materials in use."""

    rows: list[dict[str, Any]]
    latents: Latents

    @property
    def groups(self) -> list[int] | None:
        """A number for the shape of each example; None where there is one shape."""
        shapes = [(row["frames"], row["height"], row["width"]) for row in self.rows]
        number = {shape: place for place, shape in enumerate(sorted(set(shapes)))}
        return [number[shape] for shape in shapes] if len(number) > 1 else None

    def texts(self, ids: Sequence[str], *, device: torch.device) -> dict[str, torch.Tensor]:
        """The conditions of these texts, one row each."""
        found = self.latents.get(ids)
        names = found[ids[0]].keys()
        return {name: torch.stack([found[one][name] for one in ids]).to(device) for name in names}

    def batch(self, index: Sequence[int], *, device: torch.device) -> Batch:
        """These examples, all of one shape."""
        rows = [self.rows[i] for i in index]
        found = self.latents.get([row[name] for row in rows for name in ("winner", "loser")])

        def stacked(side: str) -> torch.Tensor:
            return torch.stack([found[row[side]]["latent"] for row in rows]).float().to(device)

        condition = self.texts([row["prompt"] for row in rows], device=device)
        return Batch(stacked("winner"), stacked("loser"), condition, rows, (rows[0]["height"], rows[0]["width"]))

    def warm(self, index: Sequence[int]) -> None:
        """Reads what these examples need."""
        self.latents.get([self.rows[i][name] for i in index for name in ("winner", "loser", "prompt")])


class OverExamples:
    """What an objective of the trainer says of its examples once it is prepared: `_ready.opened` has them."""

    _ready: Any

    @property
    def size(self) -> int:
        """Number of examples."""
        return len(self._ready.opened.rows)

    @property
    def groups(self) -> Sequence[int] | None:
        """The shape of each example."""
        return self._ready.opened.groups

    def name_of(self, index: int) -> str:
        """The pair's id."""
        return self._ready.opened.rows[index]["id"]

    def prefetch(self, draws: list[Draw]) -> None:
        """Reads the rows."""
        self._ready.opened.warm([draw.index for draw in draws])


@dataclass(frozen=True)
class Randomness:
    """Noise and times of training: drawn anew at every step, or from a fixed number of draws of each pair."""

    times: TimeSampler
    draws: int | None
    """So many different (noise, time) a pair, by turns, from seeds of the pair; None: another at every step."""
    seed: int = 0
    """Of the fixed draws."""

    def number(self, draw: Draw) -> int:
        """Which of the fixed draws an example is at."""
        return draw.epoch % cast(int, self.draws)

    def seed_of(self, draw: Draw, *, example: str) -> int:
        """The seed of all that is random about an example in a step."""
        return draw.seed if self.draws is None else fixed_seed(example, self.number(draw), seed=self.seed)

    def sample(self, seeds: Sequence[int], *, shape: Sequence[int], own_shift: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Noise float[b, *shape] and times float[b], each from its own seed, on the CPU whatever trains."""
        noises, times = [], []
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            noises.append(torch.randn(*shape, generator=generator))
            times.append(self.times.sample(1, generator=generator, own_shift=own_shift))
        return torch.stack(noises), torch.cat(times)


def fixed_seed(example: str, number: int, *, seed: int) -> int:
    """The seed of an example's draw number `number`: of the pair, not of the step, so that its errors can be cached."""
    return seed_of("draw", seed, example, number)
