"""Streamed writing: Parquet files of bounded size, JSON lists item by item, and each picture or clip once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from actors.media import ending

GROUP_BYTES = 16 << 20
FILE_BYTES = 512 << 20
HUGGING_FACE = b"huggingface"


def called(row: Mapping[str, Any], renamed: Mapping[str, str]) -> dict[str, Any]:
    """The row's values under the column names that the files use."""
    return {renamed.get(name, name): value for name, value in row.items()}


def renamed_schema(schema: pa.Schema, renamed: Mapping[str, str]) -> pa.Schema:
    """The schema with the files' column names, in the metadata of Hugging Face too."""
    found = pa.schema([field.with_name(renamed.get(field.name, field.name)) for field in schema])
    metadata = dict(schema.metadata or {})
    if HUGGING_FACE in metadata:
        told = json.loads(metadata[HUGGING_FACE])
        told["info"]["features"] = called(told["info"]["features"], renamed)
        metadata[HUGGING_FACE] = json.dumps(told, sort_keys=True).encode()
    return found.with_metadata(metadata)


class ParquetFiles:
    """`train-00000.parquet`, …: a row group holds about 16 MiB or 1,000 rows, a file about 512 MiB."""

    def __init__(self, folder: Path, schema: pa.Schema, *, renamed: Mapping[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.schema, self.renamed = folder, renamed_schema(schema, renamed), renamed
        self.rows: list[dict[str, Any]] = []
        self.waiting = self.written = self.number = 0
        self.writer: pq.ParquetWriter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self._flush()
        if self.writer is not None:
            self.writer.close()

    def add(self, row: dict[str, Any]) -> None:
        """Adds one row, keyed by the format's own column names."""
        self.rows.append(called(row, self.renamed))
        self.waiting += sum(_bytes(value) for value in row.values())
        if self.waiting >= GROUP_BYTES or len(self.rows) >= 1000:
            self._flush()

    def _flush(self) -> None:
        if self.writer is not None and self.written >= FILE_BYTES:
            self.writer.close()
            self.writer, self.written, self.number = None, 0, self.number + 1
        if self.writer is None:
            self.writer = pq.ParquetWriter(
                self.folder / f"train-{self.number:05d}.parquet", self.schema, compression="zstd"
            )
        if self.rows:
            self.writer.write_table(pa.Table.from_pylist(self.rows, schema=self.schema))
        self.written += self.waiting
        self.rows, self.waiting = [], 0


def _bytes(value: Any) -> int:
    if isinstance(value, dict):
        return sum(map(_bytes, value.values()))
    return len(value) if isinstance(value, bytes | str) else 8


class JsonList:
    """A JSON list with one item per line."""

    def __init__(self, path: Path, *, renamed: Mapping[str, str]) -> None:
        self.path, self.renamed = path, renamed
        self.before = "[\n"

    def __enter__(self) -> Self:
        self.file = self.path.open("w", encoding="utf-8")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.file.write("[]\n" if self.before == "[\n" else "\n]\n")
        self.file.close()

    def add(self, item: Mapping[str, Any]) -> None:
        """Adds one item, keyed by the format's own names."""
        self.file.write(self.before + json.dumps(called(item, self.renamed), ensure_ascii=False))
        self.before = ",\n"


class MediaFiles:
    """Files named by a hash of their content, so that a picture used in many pairs is written once."""

    def __init__(self, root: Path, folder: str) -> None:
        self.root, self.folder = root, folder

    def add(self, data: bytes) -> str:
        """Writes the file unless it exists; returns its name relative to the root."""
        digest = hashlib.sha256(data).hexdigest()
        name = f"{self.folder}/{digest[:2]}/{digest[:32]}{ending(data)}"
        path = self.root / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return name
