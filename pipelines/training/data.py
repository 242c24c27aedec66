"""What training reads: examples in memory as columns, latents and texts by id from the encoded artifact.

A worker opens the artifact's files itself, so nothing of the size of the data goes through the launcher. Files smaller in
sum than the budget are read once and kept; larger data sets are read as needed, the next step's rows in the background.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from infra.config import ConfigError
from infra.lazy import lazy
from infra.store.artifacts import RowReader
from pipelines.models.families.base import SIZES
from pipelines.models.families.loaded import stack

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")

LATENTS = ("winner", "loser", "winner_flipped", "loser_flipped")
GROUP = ("frames", "height", "width")
NUMBERS = ("tie", "probability", "gap", "reward_winner", "reward_loser")
SOURCE = ("original_height", "original_width", "crop_top", "crop_left")  # of an Encoded latent, in the order of SIZES
COLUMNS = ["id", *LATENTS, "prompt", *GROUP, *NUMBERS]  # of an Example: what training reads
MOST_BYTES = 4 * 2**30


@dataclass(frozen=True)
class Batch:
    """Examples of one shape, as tensors."""

    ids: list[str]
    winners: torch.Tensor  # x_0 float[b, *shape]
    losers: torch.Tensor
    condition: dict[str, torch.Tensor]  # one row per example
    columns: dict[str, np.ndarray]  # numbers of the examples; NaN where one is missing
    size: tuple[int, int]  # (height, width) in pixels
    sizes: torch.Tensor  # int64[2b, 4], winners first: original height and width, top and left of the crop, in pixels

    def column(self, name: str) -> torch.Tensor:
        """A numeric column of the examples, float[b], on the CPU; NaN where a value is missing."""
        return torch.tensor(self.columns[name].astype(np.float32))

    @property
    def both(self) -> dict[str, torch.Tensor]:
        """The conditions of the winners, then of the losers, with the sizes that the pictures had."""
        return {name: torch.cat([value, value]) for name, value in self.condition.items()} | {SIZES: self.sizes}


class Latents:
    """Encoded tensors by id, decoded once; the least recently used go when the budget is full. Safe for two threads."""

    def __init__(self, reader: RowReader, *, budget: int = MOST_BYTES) -> None:
        self.reader = reader
        self.budget = budget
        self.held = 0
        self.kept: OrderedDict[str, dict[str, torch.Tensor]] = OrderedDict()
        self.lock = threading.Lock()

    def preload(self, ids: pa.Array) -> None:
        """Reads everything now where it fits into the budget: each file once."""
        if sum(file.bytes for file in self.reader.files) <= self.budget:
            ordered = ids.take(pc.sort_indices(ids))
            for start in range(0, len(ordered), 256):
                self.get(ordered.slice(start, 256).to_pylist())

    def get(self, ids: Sequence[str]) -> dict[str, dict[str, torch.Tensor]]:
        """The tensors of these ids."""
        from safetensors.torch import load

        with self.lock:
            missing = sorted({name for name in ids if name not in self.kept})
            if missing:
                table = self.reader.take(missing, ["tensors", *SOURCE]).select(["tensors", *SOURCE])
                for name, data, *sizes in zip(missing, *(column.to_pylist() for column in table.columns), strict=True):
                    self.kept[name] = load(data)
                    if None not in sizes:  # a text has none
                        self.kept[name][SIZES] = torch.tensor(sizes)
                    self.held += len(data)
            found = {name: self.kept[name] for name in ids}
            for name in found:
                self.kept.move_to_end(name)
            while self.held > self.budget and len(self.kept) > len(found):
                _, gone = self.kept.popitem(last=False)
                self.held -= sum(value.nbytes for value in gone.values())
            return found


@dataclass(frozen=True)
class TrainingData:
    """The examples of a training run. Picklable: a file of examples and where the latents lie."""

    examples: Path
    encoded: RowReader
    empty: str
    """Id of the encoded empty text."""

    def write(self, examples: pa.Table) -> None:
        """Writes the file that `open` reads."""
        self.examples.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(examples.sort_by("id"), self.examples)

    def open(self) -> OpenTrainingData:
        """Reads the examples."""
        return OpenTrainingData.of(pq.ParquetFile(self.examples), Latents(self.encoded), empty=self.empty, preload=True)


@dataclass(frozen=True)
class OpenTrainingData:
    """Training data in use: columns, never rows as Python objects, since a rank may hold millions of examples."""

    ids: pa.Array
    """Of the examples."""
    names: pa.Array
    """Of the encoded rows that are read; the last one is the empty text."""
    places: dict[str, np.ndarray]
    """int32[examples]: positions in `names` of each of LATENTS and of the prompt; -1 where there is none."""
    numbers: dict[str, np.ndarray]
    """Of NUMBERS, by name: float32[examples], NaN where one is missing."""
    groups: np.ndarray | None
    """int[examples]: the shape of each, as a number; None where there is one shape."""
    sizes: np.ndarray
    """int[groups, 3]: frames, height and width of each group."""
    latents: Latents

    @classmethod
    def of(cls, file: pq.ParquetFile, latents: Latents, *, empty: str, preload: bool) -> OpenTrainingData:
        """The examples in a file; with `preload` their latents are read at once where they fit."""
        arrays = {}
        for name in (*LATENTS, "prompt"):
            arrays[name] = file.read([name])[name].combine_chunks().dictionary_encode()
        names = pa.concat_arrays([*(each.dictionary for each in arrays.values()), pa.array([empty], pa.string())]).unique()
        places = {}
        for name in list(arrays):
            each = arrays.pop(name)
            where = np.append(pc.index_in(each.dictionary, names).to_numpy(zero_copy_only=False), -1).astype(np.int32)
            places[name] = where[pc.fill_null(each.indices, len(where) - 1).to_numpy(zero_copy_only=False)]
        places["empty"] = np.array([names.index(empty).as_py()], dtype=np.int32)
        numbers = {}
        for name in NUMBERS:
            column = pc.cast(file.read([name])[name], pa.float32()).combine_chunks()
            numbers[name] = pc.fill_null(column, float("nan")).to_numpy(zero_copy_only=False)
        shape = np.stack([file.read([name])[name].to_numpy().astype(np.int32) for name in GROUP], axis=1)
        sizes, groups = np.unique(shape, axis=0, return_inverse=True)
        if preload:
            latents.preload(names)
        ids = file.read(["id"])["id"].combine_chunks()
        found = groups.reshape(-1).astype(np.int32) if len(sizes) > 1 else None
        return cls(ids, names, places, numbers, found, sizes, latents)

    @classmethod
    def of_table(cls, examples: pa.Table, latents: Latents, *, empty: str) -> OpenTrainingData:
        """The examples of a small table, in its order."""
        sink = pa.BufferOutputStream()
        pq.write_table(examples, sink)
        return cls.of(pq.ParquetFile(pa.BufferReader(sink.getvalue())), latents, empty=empty, preload=False)

    def __len__(self) -> int:
        return len(self.ids)

    def name_of(self, index: int) -> str:
        """Id of an example."""
        return self.ids[index].as_py()

    def texts(self, ids: Sequence[str], *, device: torch.device) -> dict[str, torch.Tensor]:
        """The conditions of these texts, one row each, padded to the longest of them."""
        found = self.latents.get(ids)
        return {name: value.to(device) for name, value in stack([found[one] for one in ids]).items()}

    def batch(
        self,
        index: Sequence[int],
        *,
        device: torch.device,
        flipped: Sequence[bool] | None = None,
        dropped: Sequence[bool] | None = None,
    ) -> Batch:
        """These examples, all of one shape.

        flipped: take both members with left and right exchanged; dropped: take the empty text in the place of the prompt.
        """
        chosen = np.asarray(index)
        turned = np.zeros(len(chosen), dtype=bool) if flipped is None else np.asarray(flipped)
        mute = np.zeros(len(chosen), dtype=bool) if dropped is None else np.asarray(dropped)
        sides = {}
        for side in ("winner", "loser"):
            plain, mirrored = (self.places[name][chosen] for name in (side, f"{side}_flipped"))
            sides[side] = self._named(np.where(turned, mirrored, plain))
        prompts = self._named(np.where(mute, self.places["empty"][0], self.places["prompt"][chosen]))
        found = self.latents.get([*sides["winner"], *sides["loser"]])
        winners, losers = (
            torch.stack([found[name]["latent"] for name in sides[side]]).float().to(device) for side in ("winner", "loser")
        )
        pixels = torch.stack([found[name][SIZES] for side in ("winner", "loser") for name in sides[side]]).to(device)
        numbers = {name: column[chosen] for name, column in self.numbers.items()}
        _, height, width = self.sizes[0 if self.groups is None else self.groups[chosen[0]]].tolist()
        ids = self.ids.take(pa.array(chosen)).to_pylist()
        return Batch(ids, winners, losers, self.texts(prompts, device=device), numbers, (height, width), pixels)

    def warm(self, index: Sequence[int]) -> None:
        """Reads what these examples need, whether flipped or without their texts."""
        chosen = np.asarray(index)
        wanted = np.unique([*(self.places[name][chosen] for name in (*LATENTS, "prompt"))])
        self.latents.get(self._named(np.append(wanted[wanted >= 0], self.places["empty"])))

    def _named(self, places: np.ndarray) -> list[str]:
        if (places < 0).any():
            raise ConfigError("training flips pictures, but the flipped ones are not encoded; set flips in encode")
        return self.names.take(pa.array(places)).to_pylist()


def cached_errors(file: Path, data: OpenTrainingData, *, draws: int) -> np.ndarray:
    """float32[examples, draws, 2] from a table (example, draw, winner, loser); NaN where one is missing."""
    table = pq.read_table(file)
    place = pc.index_in(table["example"].combine_chunks(), data.ids)
    known = pc.is_valid(place)
    place = place.filter(known).to_numpy(zero_copy_only=False)
    draw = table["draw"].combine_chunks().filter(known).to_numpy(zero_copy_only=False)
    found = np.full((len(data), draws, 2), np.nan, dtype=np.float32)
    for side, name in enumerate(("winner", "loser")):
        found[place, draw, side] = table[name].combine_chunks().filter(known).to_numpy(zero_copy_only=False)
    return found
