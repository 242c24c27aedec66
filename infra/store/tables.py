"""Tables: a frozen row dataclass <-> its Arrow schema <-> Parquet files with checked hashes.

Supported field types: str, int, float, bool, bytes, Image, Video, `X | None` of these, and list[X]. Pictures and clips are
stored as Hugging Face `Image` and `Video` (struct<bytes, path> with the schema metadata that makes `datasets.load_dataset`
show them).
"""

from __future__ import annotations

import hashlib
import json
import os
import types
import typing
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


@dataclass(frozen=True)
class Image:
    """An encoded picture: PNG bytes, and the path it came from if any."""

    bytes: bytes
    path: str | None = None


@dataclass(frozen=True)
class Video:
    """An encoded clip: the bytes of a video file, and the path it came from if any."""

    bytes: bytes
    path: str | None = None


class TableError(ValueError):
    """A table that does not match its row class; the message shows both."""


class DamagedFile(RuntimeError):
    """A data file whose bytes are not those that were written."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} is damaged: {reason}; run the same command again to compute this file anew")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return DamagedFile, (self.path, self.reason)


_FILE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
PLAIN: dict[Any, pa.DataType] = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    bytes: pa.binary(),
    Image: _FILE,
    Video: _FILE,
}
HUGGING_FACE = {str: "string", int: "int64", float: "float64", bool: "bool", bytes: "binary"}


def _unwrap(annotation: Any) -> tuple[Any, bool]:
    """(X, True) for `X | None`, else (annotation, False)."""
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        inner = [a for a in typing.get_args(annotation) if a is not type(None)]
        if len(inner) == 1:
            return inner[0], True
    return annotation, False


def _arrow_type(annotation: Any) -> pa.DataType:
    if typing.get_origin(annotation) is list:
        return pa.list_(_arrow_type(typing.get_args(annotation)[0]))
    if annotation not in PLAIN:
        raise TypeError(f"{annotation} is no column type; use one of {', '.join(t.__name__ for t in PLAIN)}")
    return PLAIN[annotation]


def _feature(annotation: Any) -> Any:
    if annotation in (Image, Video):
        return {"_type": annotation.__name__}
    if typing.get_origin(annotation) is list:
        return {"feature": _feature(typing.get_args(annotation)[0]), "_type": "List"}
    return {"dtype": HUGGING_FACE[annotation], "_type": "Value"}


@cache
def schema_of(row: type) -> pa.Schema:
    """Arrow schema of a row class; columns are not null unless declared `| None`."""
    hints = typing.get_type_hints(row)
    columns, features = [], {}
    for field in fields(row):
        kind, nullable = _unwrap(hints[field.name])
        # `datasets` applies its metadata only where the Arrow field is nullable; to_table still refuses a null picture.
        columns.append(pa.field(field.name, _arrow_type(kind), nullable=nullable or kind in (Image, Video)))
        features[field.name] = _feature(kind)
    metadata = {"huggingface": json.dumps({"info": {"features": features}}, sort_keys=True)}
    return pa.schema(columns, metadata=metadata)


@cache
def media_columns(row: type) -> tuple[str, ...]:
    """Names of the columns that hold pictures, clips or other bytes."""
    hints = typing.get_type_hints(row)
    return tuple(f.name for f in fields(row) if _unwrap(hints[f.name])[0] in (Image, Video, bytes))


def to_table(rows: Iterable[Any], row: type) -> pa.Table:
    """Rows of one class as a table of exactly its schema."""
    rows = list(rows)
    schema = schema_of(row)
    images = set(media_columns(row))
    required = {name for name, hint in typing.get_type_hints(row).items() if not _unwrap(hint)[1]}
    columns = []
    for field in schema:
        values = [getattr(r, field.name) for r in rows]
        if field.name in images:
            values = [{"bytes": v.bytes, "path": v.path} if isinstance(v, Image | Video) else v for v in values]
        try:
            column = pa.array(values, type=field.type)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise TableError(f"{row.__name__}.{field.name} must be {field.type}: {error}") from error
        if field.name in required and column.null_count:
            raise TableError(f"{row.__name__}.{field.name} must not be null; row {column.is_null().index(True)} is")
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=schema)


def check_schema(table: pa.Table, row: type, *, place: str) -> None:
    """Raises TableError, showing both schemas, unless the table's is the row class's."""
    wanted = schema_of(row)
    if not table.schema.equals(wanted):
        raise TableError(
            f"{place} does not hold rows of {row.__name__}\n"
            f"found:\n{table.schema.to_string(show_schema_metadata=False)}\n"
            f"wanted:\n{wanted.to_string(show_schema_metadata=False)}"
        )


def from_table(table: pa.Table, row: type) -> Iterator[Any]:
    """Rows of a table; a column of pictures or clips becomes Image or Video objects."""
    hints = {f.name: _unwrap(typing.get_type_hints(row)[f.name])[0] for f in fields(row)}
    media = {name: kind for name, kind in hints.items() if kind in (Image, Video)}
    for batch in table.to_batches(max_chunksize=10_000):
        for values in batch.to_pylist():
            for name, kind in media.items():
                if values[name] is not None:
                    values[name] = kind(**values[name])
            yield row(**values)


@dataclass(frozen=True)
class FileRecord:
    """A file as it was written: size and hash, with which a later change is noticed."""

    name: str
    bytes: int
    sha256: str
    rows: int
    first: str = ""  # the first row's id where rows are sorted by id: a lookup bisects on it


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, data: bytes) -> None:
    """Bytes under their final name or not at all: temporary name, fsync, rename. A full disk leaves nothing behind."""
    temporary = path.parent / f".tmp-{path.name}-{uuid.uuid4().hex[:8]}"
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_table(table: pa.Table, path: Path, *, row_group_rows: int = 4096) -> FileRecord:
    """One Parquet file, written atomically; the same table gives the same bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=row_group_rows, write_page_checksum=True)
    data = sink.getvalue().to_pybytes()
    write_atomic(path, data)
    digest = hashlib.sha256(data).hexdigest()
    return FileRecord(name=path.name, bytes=len(data), sha256=digest, rows=table.num_rows, first=first_id(table))


def first_id(table: pa.Table) -> str:
    """The id of the first row, or "" where there is none."""
    return table["id"][0].as_py() if table.num_rows and "id" in table.column_names else ""


def _bytes_of(path: Path) -> pa.Buffer:
    """A file's bytes in Arrow's own memory.

    A reader's thread may release them last, after Python has ended; memory owned by Python would then abort the process.
    """
    with pa.OSFile(str(path)) as file:
        return file.read_buffer()


def read_verified(path: Path, record: FileRecord, columns: Sequence[str] | None = None) -> pa.Table:
    """The table of a file whose bytes are those of its record; raises DamagedFile otherwise."""
    try:
        data = _bytes_of(path)
    except FileNotFoundError as error:
        raise DamagedFile(path, "it is gone") from error
    if len(data) != record.bytes:
        raise DamagedFile(path, f"it has {len(data)} bytes, {record.bytes} were written")
    if hashlib.sha256(data).hexdigest() != record.sha256:
        raise DamagedFile(path, "its hash is not the one recorded when it was written")
    return pq.read_table(pa.BufferReader(data), columns=None if columns is None else list(columns))


def read_unrecorded(path: Path) -> tuple[pa.Table, FileRecord]:
    """The table of a shard that no record lists yet (its run was killed), and the record it should have.

    Its bytes cannot be compared with a recorded hash, but every page carries a checksum, which is verified here.
    """
    data = _bytes_of(path)
    try:
        table = pq.read_table(pa.BufferReader(data), page_checksum_verification=True)
    except (OSError, pa.ArrowInvalid) as error:
        raise DamagedFile(path, f"it does not read as Parquet ({error})") from error
    digest = hashlib.sha256(data).hexdigest()
    return table, FileRecord(name=path.name, bytes=len(data), sha256=digest, rows=table.num_rows, first=first_id(table))
