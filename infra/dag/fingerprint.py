"""Fingerprints: when a row that another artifact holds may be taken over.

A row is taken over only where everything it was made from is equal: its whole cell, the options of the stage that its
worker reads, and the content of what the worker reads of other stages. All of it goes into one hash per cell, which the
plan stores beside the id. Rows of a stage are hashed when they are written, so that a child can tell, row by row, whether
what it looks up is still the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from infra.dag.stage import RowStage, Stage
from infra.identity import dumps, fields, key_of

FINGERPRINT = "fingerprint"
SIZE = 16  # bytes of a hash
AT_ONCE = 50_000
READS = b"salon.reads"


class Contents(Protocol):
    """What is known of the content of other stages: all of it in a run, what is on disk in a plan."""

    def digest(self, stage: Stage) -> str | None:
        """The digest of everything a finished stage holds; None where it is not known yet."""
        ...

    def hashes(self, stage: Stage) -> pa.Table | None:
        """Columns id and hash (null where it is not known yet) of a stage's rows; None where there are no hashes."""
        ...


def hash_rows(table: pa.Table, *, salt: str = "") -> pa.Array:
    """binary[16] of each row: over all its columns and their names."""
    named = repr((salt, [(field.name, str(field.type)) for field in table.schema])).encode()
    head = blake2b(named, digest_size=SIZE).digest()
    found: list[bytes] = []
    for batch in table.combine_chunks().to_batches(max_chunksize=AT_ONCE):
        texts: list[pa.Array] = []
        blobs: list[list[bytes]] = []
        for column in batch.columns:
            _parts(column, texts, blobs)
        joined = pc.binary_join_element_wise(*texts, "\x1f") if texts else pa.array([""] * len(batch), pa.string())
        rows = joined.cast(pa.binary()).to_pylist()
        if blobs:
            rows = [_with_blobs(text, each) for text, each in zip(rows, zip(*blobs, strict=True), strict=True)]
        found += [blake2b(head + row, digest_size=SIZE).digest() for row in rows]
    return pa.array(found, pa.binary(SIZE))


def _with_blobs(text: bytes, blobs: tuple[bytes, ...]) -> bytes:
    """One row's text and its bytes, each with its length before it."""
    return text + b"".join(b"%d:%b" % (len(blob), blob) for blob in blobs)


def _parts(column: pa.Array, texts: list[pa.Array], blobs: list[list[bytes]]) -> None:
    """A column as texts, each with its length before it, or as bytes per row."""
    kind = column.type
    if pa.types.is_struct(kind):
        for child in column.flatten():
            _parts(child, texts, blobs)
    elif pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind) or pa.types.is_large_binary(kind):
        blobs.append([b"" if value is None else b"+" + value for value in column.to_pylist()])
    elif pa.types.is_nested(kind):
        blobs.append([repr(value).encode() for value in column.to_pylist()])
    else:
        text = column.cast(pa.string())
        texts.append(pc.fill_null(pc.binary_length(text).cast(pa.string()), "-"))
        texts.append(pc.fill_null(text, ""))


def maker_of(stage: RowStage) -> str:
    """The key of the options that every row depends on: all but parents and what the cells hold."""
    options = {name: value for name, value in fields(stage).items() if name not in stage.in_cells}
    return key_of([stage.name, stage.version, {n: v for n, v in options.items() if n not in stage.parents}])


def read_by(stage: RowStage) -> list[Stage]:
    """Stages that the worker reads, by id or whole, each once."""
    every = [*stage.reads(), *stage.looks_up().values(), *_nested(stage, inside=True), *_nested(stage, inside=False)]
    return list({one.key: one for one in every}.values())


def _nested(stage: RowStage, *, inside: bool) -> list[Stage]:
    """Stages held by options (weights that a stage makes): inside options that enter row by row, or inside others."""
    found = []
    for path, parent in stage.parents.items():
        field = path.split(".")[0].split("[")[0]
        if path != field and (field in stage.in_cells) == inside:
            found.append(parent)
    return found


def fingerprinted(stage: RowStage, cells: pa.Table, contents: Contents) -> pa.Table:
    """The cells with the column `fingerprint`: null where what the row is made from is not known yet.

    In the metadata: the content of stages inside options that enter row by row.
    """
    salt = [maker_of(stage)]
    known = True
    for parent in [*stage.reads(), *_nested(stage, inside=False)]:
        digest = contents.digest(parent)
        known = known and digest is not None
        salt.append(digest or "")
    unknown = pa.array([not known] * len(cells), pa.bool_())
    hashed = cells
    for column, parent in stage.looks_up().items():
        hashes = contents.hashes(parent)
        if hashes is None:
            digest = contents.digest(parent)
            salt.append(digest or "")
            unknown = pa.array([True] * len(cells), pa.bool_()) if digest is None else unknown
            continue
        at = _flat(pc.index_in(cells[column], hashes["id"].combine_chunks()))
        there = _flat(hashes["hash"]).take(at)
        unknown = pc.or_(unknown, pc.and_(pc.is_valid(at), pc.is_null(there)))
        hashed = hashed.append_column(f"{column}'s content", there)
    found = hash_rows(hashed, salt=dumps(salt))
    found = pc.if_else(unknown, pa.scalar(None, pa.binary(SIZE)), found)
    reads = {parent.key: contents.digest(parent) or "" for parent in _nested(stage, inside=True)}
    metadata = (cells.schema.metadata or {}) | {READS: dumps(reads).encode()}
    return cells.append_column(FINGERPRINT, found).replace_schema_metadata(metadata)


def _flat(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def hash_table(ids: pa.Array | pa.ChunkedArray, hashes: Iterable[bytes]) -> pa.Table:
    """The hashes of an artifact's rows, as they are stored."""
    whole = b"".join(hashes)
    each = pa.FixedSizeBinaryArray.from_buffers(pa.binary(SIZE), len(whole) // SIZE, [None, pa.py_buffer(whole)])
    return pa.table({"id": ids, "hash": each})
