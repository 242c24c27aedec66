"""What training reads: examples as columns of a file that is mapped into memory, latents and texts by id.

A worker opens the artifact's files itself, so nothing of the size of the data goes through the launcher. Files smaller in
sum than the budget are read once and kept; larger data sets are read as needed, the next step's rows in the background.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
SHAPE_BITS = 20  # of a number of frames, a height or a width


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
    first: dict[str, torch.Tensor] = field(default_factory=dict)
    """What is read of each member's own first frame, float[2b, ...], winners first; empty where nothing is."""

    def column(self, name: str) -> torch.Tensor:
        """A numeric column of the examples, float[b], on the CPU; NaN where a value is missing."""
        return torch.tensor(self.columns[name].astype(np.float32))

    @property
    def both(self) -> dict[str, torch.Tensor]:
        """The conditions of the winners, then of the losers, with the sizes that the pictures had."""
        doubled = {name: torch.cat([value, value]) for name, value in self.condition.items()}
        return doubled | self.first | {SIZES: self.sizes}


class Latents:
    """Encoded tensors by id, decoded once; the least recently used go when the budget is full. Safe for two threads."""

    def __init__(self, reader: RowReader, *, budget: int = MOST_BYTES) -> None:
        self.reader = reader
        self.budget = budget
        self.held = 0
        self.kept: OrderedDict[str, dict[str, torch.Tensor]] = OrderedDict()
        self.lock = threading.Lock()

    @property
    def fit(self) -> bool:
        """Whether everything that is encoded fits into the budget."""
        return sum(file.bytes for file in self.reader.files) <= self.budget

    def preload(self, ids: pa.Array) -> None:
        """Reads these now, each file once."""
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
        """Writes the file that `open` maps: one record batch, so that any row is found by its number at once."""
        self.examples.parent.mkdir(parents=True, exist_ok=True)
        table = examples.select(COLUMNS).sort_by("id").combine_chunks()
        partial = self.examples.with_name(f".{self.examples.name}.partial")
        with pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_file(sink, table.schema) as file:
            file.write_table(table)
        partial.replace(self.examples)

    def open(self) -> OpenTrainingData:
        """The examples; their latents are read at once where they fit."""
        with pa.memory_map(str(self.examples)) as source:
            table = pa.ipc.open_file(source).read_all()
        data = OpenTrainingData.of_table(table, Latents(self.encoded), empty=self.empty)
        data.preload()
        return data


@dataclass(frozen=True)
class OpenTrainingData:
    """Training data in use: columns, never rows as Python objects, since there may be millions of examples.

    All ranks of a machine share the pages of the file, and the system drops those that are not used.
    """

    table: pa.Table
    """COLUMNS of the examples."""
    empty: str
    """Id of the encoded empty text."""
    groups: np.ndarray | None
    """int32[examples]: the shape of each, as a number; None where there is one shape."""
    sizes: np.ndarray
    """int[groups, 3]: frames, height and width of each group."""
    latents: Latents

    @classmethod
    def of_table(cls, examples: pa.Table, latents: Latents, *, empty: str) -> OpenTrainingData:
        """The examples of a table, in its order."""
        # One number of 20 bits for each of the three: a fifth of the time and memory of comparing rows.
        shape = np.zeros(examples.num_rows, dtype=np.int64)
        for name in GROUP:
            shape = (shape << SHAPE_BITS) + examples[name].to_numpy()
        packed, groups = np.unique(shape, return_inverse=True)
        sizes = np.stack([packed >> SHAPE_BITS * place & (1 << SHAPE_BITS) - 1 for place in (2, 1, 0)], axis=1)
        found = groups.reshape(-1).astype(np.int32) if len(sizes) > 1 else None
        return cls(examples.select(COLUMNS), empty, found, sizes, latents)

    def __len__(self) -> int:
        return self.table.num_rows

    @property
    def ids(self) -> pa.Array:
        """Number of examples."""
        return self.table["id"].combine_chunks()

    def name_of(self, index: int) -> str:
        """Id of an example."""
        return self.table["id"][index].as_py()

    def numbers(self, name: str, chosen: np.ndarray | None = None) -> np.ndarray:
        """One of NUMBERS of these examples, of all by default: float32, NaN where one is missing."""
        column = self.table[name] if chosen is None else self.table[name].take(pa.array(chosen))
        found = pc.cast(column, pa.float32()).combine_chunks()
        return pc.fill_null(found, float("nan")).to_numpy(zero_copy_only=False)

    def preload(self) -> None:
        """Reads every latent and text now, where all of them fit into the budget."""
        if self.latents.fit:
            pieces = [chunk for name in (*LATENTS, "prompt") for chunk in self.table[name].chunks]
            names = pa.concat_arrays([*pieces, pa.array([self.empty], pa.string())]).unique().drop_null()
            self.latents.preload(names)

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
        sides = {side: self._names(side, chosen) for side in ("winner", "loser")}
        if turned.any():
            for side, plain in sides.items():
                mirrored = self._names(f"{side}_flipped", chosen)
                sides[side] = [other if turn else one for one, other, turn in zip(plain, mirrored, turned, strict=True)]
        texts = self._names("prompt", chosen)
        prompts = [self.empty if silent else text for text, silent in zip(texts, mute, strict=True)]
        if any(name is None for names in sides.values() for name in names):
            raise ConfigError("training flips pictures, but the flipped ones are not encoded; set flips in encode")
        found = self.latents.get([*sides["winner"], *sides["loser"]])
        winners, losers = (
            torch.stack([found[name]["latent"] for name in sides[side]]).float().to(device) for side in ("winner", "loser")
        )
        members = [found[name] for side in ("winner", "loser") for name in sides[side]]
        pixels = torch.stack([one[SIZES] for one in members]).to(device)
        read = [name for name in members[0] if name not in ("latent", SIZES)]
        first = {name: torch.stack([one[name] for one in members]).to(device) for name in read}
        numbers = {name: self.numbers(name, chosen) for name in NUMBERS}
        _, height, width = self.sizes[0 if self.groups is None else self.groups[chosen[0]]].tolist()
        ids = self._names("id", chosen)
        return Batch(ids, winners, losers, self.texts(prompts, device=device), numbers, (height, width), pixels, first)

    def warm(self, index: Sequence[int]) -> None:
        """Reads what these examples need, whether flipped or without their texts."""
        chosen = np.asarray(index)
        wanted = {name for column in (*LATENTS, "prompt") for name in self._names(column, chosen)}
        self.latents.get([*sorted(wanted - {None}), self.empty])

    def _names(self, column: str, chosen: np.ndarray) -> list[Any]:
        """Values of a column of ids: strings, or None where there is no flipped latent."""
        return self.table[column].take(pa.array(chosen)).to_pylist()


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
