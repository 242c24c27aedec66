"""The bytes of pictures and clips, from a column of a Parquet file or from a file of the folder."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.exchange.pairs import BadRow

BATCH_ROWS = 32
"""Rows of a Parquet file that are held in memory; one row may hold megabytes."""
CLIPS = (".mp4", ".webm", ".mov", ".mkv", ".avi", ".m4v")


def inside(folder: Path, name: str) -> Path:
    """The file of that name, links followed; raises BadRow where it lies outside the folder.

    In a snapshot of the Hub's cache every file is a link into `blobs` of the same repository, which counts as inside.
    """
    path, root = (folder / name).resolve(), folder.resolve()
    if path.is_relative_to(root):
        return path
    if root.parent.name == "snapshots" and path.is_relative_to(root.parent.parent / "blobs"):
        return path
    raise BadRow(f"{name} lies outside the folder")


@dataclass(frozen=True)
class Place:
    """Where the bytes of one picture or clip are."""

    file: str
    """The row's file, relative to the folder."""
    number: int
    """The row's number in its file."""
    column: str
    """The column that holds the bytes; "" if they are the file `path`."""
    path: str
    """The file that holds the bytes, relative to the folder."""


class MediaReader:
    """Reads places of a folder. Reading forward through a Parquet file holds a few of its rows, never a whole row group."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kept: dict[Place, bytes | Exception] = {}
        self.stream: _Forward | None = None

    def fetch(self, places: Sequence[Place]) -> list[bytes | Exception]:
        """The bytes of each place, or the reason why there are none.

        Places of the last call are kept: a batch with a bad row is run again in halves.
        """
        if not self.kept.keys() >= set(places):
            self.kept = {}
            for place in places:
                try:
                    self.kept[place] = self._read(place)
                except (OSError, ValueError, pa.ArrowException) as error:
                    self.kept[place] = error
        return [self.kept[place] for place in places]

    def _read(self, place: Place) -> bytes:
        if not place.column:
            return inside(self.folder, place.path).read_bytes()
        path = self.folder / place.file
        if self.stream is None or self.stream.path != path or place.column not in self.stream.columns:
            columns = {place.column, *(self.stream.columns if self.stream and self.stream.path == path else ())}
            self.stream = _Forward(path, sorted(columns))
        value = self.stream.at(place.number, place.column)
        data = value.get("bytes") if isinstance(value, dict) else value
        if not data and isinstance(value, dict) and value.get("path"):
            beside = PurePosixPath(place.file).parent / value["path"]
            found = [p for p in (inside(self.folder, str(beside)), inside(self.folder, value["path"])) if p.is_file()]
            data = found[0].read_bytes() if found else None
        if not data:
            raise BadRow("it holds no bytes")
        return data


class _Forward:
    """Rows of one Parquet file; reading them in rising order is cheapest."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path, self.columns = path, tuple(columns)
        self.file = pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
        metadata = self.file.metadata
        self.starts = [0]
        for group in range(metadata.num_row_groups):
            self.starts.append(self.starts[-1] + metadata.row_group(group).num_rows)
        self.group = -1
        self.broken: dict[int, Exception] = {}

    def _open(self, group: int) -> None:
        self.group, self.first = group, self.starts[group]
        self.batches: Iterator[pa.RecordBatch] = self.file.iter_batches(
            BATCH_ROWS, row_groups=[group], columns=list(self.columns), use_threads=False
        )
        self.batch = pa.record_batch({name: [] for name in self.columns})

    def at(self, number: int, column: str) -> Any:
        """One value; raises what reading raises, without a new attempt for a row group that failed before."""
        group = bisect_right(self.starts, number) - 1
        if group != self.group or number < self.first:
            if group in self.broken:
                raise self.broken[group]
            self._open(group)
        try:
            while number >= self.first + len(self.batch):
                self.first += len(self.batch)
                self.batch = next(self.batches)
        except (OSError, pa.ArrowException) as error:
            self.broken[group], self.group = error, -1
            raise
        return self.batch.column(column)[number - self.first].as_py()
