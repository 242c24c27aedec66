"""The shard plan of a row-wise stage: which rows, in which files, and where each can be taken over from.

Rows are sorted by id and cut every `shard_rows`; the plan is stored before the first row is computed, so that whoever
resumes, with however many workers, writes the same files. A row of another artifact of the same stage and version
(finished, superseded, or killed half way) is copied instead of being computed where it has the same id and was made from
the same things (`infra.dag.fingerprint`).
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from infra.dag.fingerprint import FINGERPRINT, READS, Contents, fingerprinted
from infra.dag.stage import RowStage
from infra.store.artifacts import Store
from infra.store.record import read_record
from infra.store.tables import DamagedFile, FileRecord, from_table, read_unrecorded, write_table

CELLS = "cells.parquet"
REUSE = "reuse.parquet"
ERRORS = "errors.parquet"
HASHES = "hashes.parquet"
REUSE_SCHEMA = pa.schema([("id", pa.string()), ("directory", pa.string()), ("part", pa.string())])


@dataclass(frozen=True)
class RowError:
    """One quarantined row."""

    id: str
    shard: int
    type: str  # class of the exception
    message: str
    traceback: str
    attempts: int


@dataclass(frozen=True)
class ShardDone:
    """A shard that is on disk."""

    shard: int
    file: FileRecord
    computed: int
    reused: int
    errors: int
    hashes: bytes  # 16 of each row, in the file's order


def part_name(shard: int) -> str:
    """File of a shard's rows."""
    return f"part-{shard:05d}.parquet"


def errors_name(shard: int) -> str:
    """File of a shard's quarantined rows, until the stage is finished."""
    return f"errors-{shard:05d}.parquet"


@dataclass(frozen=True)
class ShardPlan:
    """What a run of a row-wise stage will do."""

    cells: pa.Table  # sorted by id
    reuse: pa.Table  # id, directory, part: rows to take over
    todo: tuple[int, ...]  # shards that have no file yet
    shards: int
    to_do: int  # rows to compute
    to_reuse: int  # rows to copy, or already in this artifact's files
    fresh: bool  # nothing of this plan is on disk yet


def sorted_cells(stage: RowStage, cells: pa.Table) -> pa.Table:
    """Cells sorted by id, with the plan's settings in the metadata; raises ValueError on a repeated id."""
    cells = cells.sort_by("id")
    ids = cells["id"]
    if len(pc.unique(ids)) != len(ids):
        counts = pc.value_counts(ids)
        twice = next(c["values"].as_py() for c in counts if c["counts"].as_py() > 1)
        raise ValueError(f"stage {stage.node} names row {twice} twice; what tells its cells apart is missing from its id")
    metadata = {"salon.version": str(stage.version), "salon.shard_rows": str(stage.shard_rows)}
    return cells.replace_schema_metadata(metadata).combine_chunks()


def shard_count(rows: int, shard_rows: int) -> int:
    """Number of shards; an empty stage has one, so that it has a typed file."""
    return max(1, -(-rows // shard_rows))


def drop_unsound(directory: Path, cells: pa.Table, shard_rows: int) -> list[int]:
    """Removes shards a killed run left that are not whole: unreadable, or other rows than planned. Their numbers."""
    dropped = []
    for shard in range(shard_count(len(cells), shard_rows)):
        path = directory / part_name(shard)
        if not path.is_file():
            continue
        planned = cells["id"].slice(shard * shard_rows, shard_rows).to_pylist()
        try:
            there = read_unrecorded(path)[0]["id"].to_pylist()
            failed = set(_failed_ids(directory, shard).to_pylist())
            sound = there == [name for name in planned if name not in failed]
        except (DamagedFile, OSError, pa.ArrowInvalid):
            sound = False
        if not sound:
            path.unlink()
            dropped.append(shard)
    return dropped


def collect_errors(directory: Path, redone: set[int]) -> list[RowError]:
    """All quarantined rows: those of shards written now, and those an earlier run had collected of the other shards."""
    found: dict[str, RowError] = {}
    whole = directory / ERRORS
    if whole.is_file():
        found = {e.id: e for e in from_table(pq.read_table(whole), RowError) if e.shard not in redone}
    for path in sorted(directory.glob("errors-*.parquet")):
        found |= {e.id: e for e in from_table(pq.read_table(path), RowError)}
    return sorted(found.values(), key=lambda e: e.id)


def rows_on_disk(directory: Path, version: int) -> pa.Table | None:
    """(id, part, fingerprint) of every row in a directory's files; None where they are of another version or unplanned."""
    path = directory / CELLS
    if not path.is_file():
        return None
    try:
        cells = pq.read_table(path, columns=["id", FINGERPRINT])
    except (OSError, pa.ArrowInvalid):
        return None
    if FINGERPRINT not in cells.column_names:  # written before there were any: what it was made from is not known
        return None
    metadata = cells.schema.metadata or {}
    if metadata.get(b"salon.version") != str(version).encode():
        return None
    size = int(metadata[b"salon.shard_rows"])
    present = {path.name for path in directory.glob("part-*.parquet")}
    shards = shard_count(len(cells), size)
    there = np.array([part_name(k) in present for k in range(shards)])
    number = np.arange(len(cells)) // size
    names = pa.array([part_name(k) for k in range(shards)])
    keep = pa.array(there[number]) if len(cells) else pa.array([], pa.bool_())
    part = names.take(pa.array(number))
    found = pa.table({"id": cells["id"], "part": part, FINGERPRINT: cells[FINGERPRINT]}, metadata=metadata).filter(keep)
    failed = _failed_ids(directory)
    return found.filter(pc.invert(pc.is_in(found["id"], failed))) if len(failed) else found


def _failed_ids(directory: Path, shard: int | None = None) -> pa.Array:
    ids: list[str] = []
    for path in directory.glob("errors*.parquet"):
        table = pq.read_table(path, columns=["id", "shard"])
        if shard is not None:
            table = table.filter(pc.equal(table["shard"], shard))
        ids += table["id"].to_pylist()
    return pa.array(ids, pa.string())


def plan_shards(
    stage: RowStage,
    cells: pa.Table,
    *,
    store: Store,
    contents: Contents,
    reuse: bool = True,
    source: dict[str, str] | None = None,
    damaged: tuple[str, ...] = (),
    restart: bool = False,
    counted: bool = False,
) -> ShardPlan:
    """The plan for `cells`.

    contents: what is known of the stages whose content the rows are made from;
    reuse: whether rows may be copied from other artifacts; source: copy only from artifacts of exactly this source;
    damaged: files of the stage's own directory that do not count; restart: the directory will be moved aside and its rows
    taken over like those of any other; counted: the plan is read and not stored, so that a stage of which the store holds
    nothing needs no fingerprints.
    """
    cells = sorted_cells(stage, cells)
    shards = shard_count(len(cells), stage.shard_rows)
    if counted and not store.siblings(stage):
        return ShardPlan(cells, REUSE_SCHEMA.empty_table(), tuple(range(shards)), shards, len(cells), 0, fresh=True)
    cells = fingerprinted(stage, cells, contents)
    directory = store.directory(stage)
    fresh = restart or not _same_plan(directory, cells)
    present = set() if fresh else {path.name for path in directory.glob("part-*.parquet")} - set(damaged)
    todo = tuple(k for k in range(shards) if part_name(k) not in present)
    number = np.arange(len(cells)) // stage.shard_rows
    missing = cells.filter(pa.array(np.isin(number, np.array(todo, dtype=int)))) if len(cells) else cells
    own = None if fresh else directory
    taken = _sources(stage, missing, store=store, own=own, source=source) if reuse else REUSE_SCHEMA.empty_table()
    return ShardPlan(
        cells=cells,
        reuse=taken,
        todo=todo,
        shards=shards,
        to_do=len(missing) - len(taken),
        to_reuse=len(taken) + len(cells) - len(missing),
        fresh=fresh,
    )


def _same_plan(directory: Path, cells: pa.Table) -> bool:
    path = directory / CELLS
    if not path.is_file():
        return False
    try:
        stored = pq.read_table(path)
    except (OSError, pa.ArrowInvalid):
        return False
    return stored.equals(cells) and (stored.schema.metadata or {}) == (cells.schema.metadata or {})


def _sources(
    stage: RowStage, cells: pa.Table, *, store: Store, own: Path | None, source: dict[str, str] | None
) -> pa.Table:
    """Where each of the cells can be taken over from: rows with its id and fingerprint, in the newest artifact first."""
    pieces: list[pa.Table] = []
    reads = json.loads((cells.schema.metadata or {})[READS])
    cells = cells.select(["id", FINGERPRINT]).filter(pc.is_valid(cells[FINGERPRINT]))
    for sibling in reversed(store.siblings(stage)):
        if sibling == own or not len(cells):
            continue
        if source is not None:
            record = read_record(sibling)
            if record is None or record.source != source:
                continue
        rows = rows_on_disk(sibling, stage.version)
        if rows is None or not len(rows) or not _agree(rows, reads):
            continue
        at = pc.index_in(rows["id"], cells["id"].combine_chunks())
        wanted = cells[FINGERPRINT].combine_chunks().take(at.combine_chunks())
        rows = rows.filter(pc.fill_null(pc.equal(rows[FINGERPRINT], wanted), False))
        if len(rows):
            # Relative to the folder of the stage: a replaced artifact lies elsewhere.
            place = os.path.relpath(sibling, store.directory(stage).parent)
            names = pa.array([place] * len(rows), pa.string())
            pieces.append(pa.table([rows["id"], names, rows["part"]], schema=REUSE_SCHEMA))
            cells = cells.filter(pc.invert(pc.is_in(cells["id"], rows["id"].combine_chunks())))
    return pa.concat_tables(pieces).sort_by("id") if pieces else REUSE_SCHEMA.empty_table()


def _agree(rows: pa.Table, reads: dict[str, str]) -> bool:
    """Whether stages inside options had the content that they have now, those that both know of."""
    then = json.loads((rows.schema.metadata or {}).get(READS, b"{}"))
    return all(then[key] == digest for key, digest in reads.items() if key in then)


def store_plan(stage: RowStage, plan: ShardPlan, *, directory: Path) -> None:
    """Writes a fresh plan; the cells last, since they make the directory one that can be resumed."""
    directory.mkdir(parents=True, exist_ok=True)
    write_table(plan.reuse, directory / REUSE)
    if plan.fresh:
        write_table(plan.cells, directory / CELLS, row_group_rows=stage.shard_rows)
