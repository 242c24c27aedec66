"""The store: artifact directories under one root, readers that check hashes, and the state of a stage's artifact.

{root}/artifacts/{stage}/{key}/part-00000.parquet … cells.parquet errors.parquet weights/ artifact.json
{root}/retired/{stage}/{key}.old-0/   what was replaced: its rows can be taken over, and no glob over artifacts counts it
{root}/runs/                 which keys a run used, and its log: `infra.store.runs`
{root}/locks/ scratch/       what only a run in progress needs
"""

from __future__ import annotations

import fcntl
import os
import shutil
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from infra.dag.stage import Stage
from infra.store.record import NAME, Record, read_record
from infra.store.tables import DamagedFile, FileRecord, from_table, read_verified, schema_of, sha256_of

ASIDE = ".old-"


@dataclass(frozen=True)
class RowReader:
    """Rows of one table of an artifact by id: bisects on each file's first id. Picklable.

    Files that were read stay in memory, the least recently used go first, up to `budget` bytes; what one call needs is kept
    whatever its size, so that going round many files (one of each generator, say) reads each of them once.
    """

    directory: Path
    files: tuple[FileRecord, ...]
    row: type
    budget: int = 2**30

    @cached_property
    def _cache(self) -> OrderedDict[tuple[str, tuple[str, ...]], pa.Table]:
        return OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("directory", "files", "row", "budget")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, value)

    def _file(self, record: FileRecord, columns: tuple[str, ...]) -> pa.Table:
        key = (record.name, columns)
        if key not in self._cache:
            self._cache[key] = read_verified(self.directory / record.name, record, columns)
        self._cache.move_to_end(key)
        return self._cache[key]

    def _forget(self, needed: int) -> None:
        """Lets the least recently used files go, down to the budget, but never the last `needed`."""
        held = sum(table.nbytes for table in self._cache.values())
        while held > self.budget and len(self._cache) > needed:
            _, gone = self._cache.popitem(last=False)
            held -= gone.nbytes

    def take(self, ids: Sequence[str], columns: Sequence[str]) -> pa.Table:
        """Rows with these ids, in this order, with `columns` and `id`; raises KeyError naming ids that are not there."""
        filled = [f for f in self.files if f.rows]
        firsts = [f.first for f in filled]
        wanted: dict[int, list[str]] = {}
        for name in sorted(set(ids)):
            wanted.setdefault(max(bisect_right(firsts, name) - 1, 0), []).append(name)
        asked = tuple(dict.fromkeys(["id", *columns]))
        pieces = []
        for number, names in wanted.items() if filled else ():
            table = self._file(filled[number], asked)
            pieces.append(table.filter(pc.is_in(table["id"], pa.array(names, pa.string()))))
        self._forget(len(pieces))
        found = pa.concat_tables(pieces) if pieces else schema_of(self.row).empty_table().select(asked)
        position = pc.index_in(pa.array(ids, pa.string()), found["id"].combine_chunks())
        if position.null_count:
            missing = [name for name, at in zip(ids, position.to_pylist(), strict=True) if at is None]
            raise KeyError(f"{len(missing)} rows are not in {self.directory}, {missing[0]} for one")
        return found.take(position)


@dataclass(frozen=True)
class Artifact:
    """A finished artifact, read with its hashes checked."""

    directory: Path
    record: Record

    def files(self, name: str | None) -> list[FileRecord]:
        """Files of the rows, or of the side table `name`."""
        if name is None:
            return self.record.files
        if name not in self.record.tables:
            raise KeyError(f"{self.record.stage} has no table {name!r}; it has {sorted(self.record.tables)}")
        return self.record.tables[name]

    def table(self, row: type, columns: Sequence[str] | None = None, *, name: str | None = None) -> pa.Table:
        """All rows (or those of a side table) with the given columns."""
        pieces = [read_verified(self.directory / f.name, f, columns) for f in self.files(name)]
        if pieces:
            return pa.concat_tables(pieces)
        empty = schema_of(row).empty_table()
        return empty if columns is None else empty.select(list(columns))

    def rows(self, row: type, *, name: str | None = None) -> Iterator[Any]:
        """Rows as dataclass objects, file by file."""
        for file in self.files(name):
            yield from from_table(read_verified(self.directory / file.name, file), row)

    def reader(self, row: type) -> RowReader:
        """Random access by id."""
        return RowReader(directory=self.directory, files=tuple(self.record.files), row=row)

    def hashes(self) -> pa.Table | None:
        """Columns id and hash of the rows, where they were hashed."""
        file = self.record.hashes
        return None if file is None else read_verified(self.directory / file.name, file)

    def weights(self) -> Path:
        """The folder of weights, every hash checked first."""
        folder = self.directory / "weights"
        for file in self.record.weights:
            path = folder / file.name
            if not path.is_file():
                raise DamagedFile(path, "it is gone")
            if sha256_of(path) != file.sha256:
                raise DamagedFile(path, "its hash is not the one recorded when it was written")
        return folder


@dataclass(frozen=True)
class ArtifactState:
    """What the store holds for one stage."""

    record: Record | None = None
    damaged: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()  # parents whose content changed since
    started: bool = False  # shards without a record

    @property
    def hit(self) -> bool:
        """Finished, whole, and made from the parents as they are."""
        return self.record is not None and not self.damaged and not self.stale


Stamp = tuple[int, int, int]
"""Time of change, size and inode of a file."""


@dataclass
class Store:
    """Artifacts under one root folder (local or on a disk all machines share).

    `store.artifact(stage).rows(stage.row)` are the rows of a finished stage, and `.table(...)` its columns.

    >>> from pipelines.miniature.prompts import Grammar
    >>> from pipelines.stages.prompts import WritePrompts
    >>> store = Store(Path("salon-store"))
    >>> store.artifact(WritePrompts(source=Grammar()))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    LookupError: stage prompts has no artifact ...; run it first
    """

    root: Path
    _digests: dict[Path, tuple[tuple[int, int, int], str]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        self.root = self.root.resolve()

    def place(self, stage: str, key: str) -> Path:
        """Where the artifact of a stage's name and a key is or will be."""
        return self.root / "artifacts" / stage / key

    def directory(self, stage: Stage) -> Path:
        """Where the stage's artifact is or will be."""
        return self.place(stage.name, stage.key)

    def folders(self, stage: str = "*") -> list[Path]:
        """The folder of every artifact, of one stage or of all, finished or not; replaced ones left out."""
        return sorted(path for path in (self.root / "artifacts").glob(f"{stage}/*") if path.is_dir())

    def retired(self, stage: str = "*") -> list[Path]:
        """The folder of every replaced artifact, of one stage or of all."""
        return sorted(path for path in (self.root / "retired").glob(f"{stage}/*") if path.is_dir())

    def scratch(self, stage: Stage) -> Path:
        """Where a computation in progress keeps what must survive a kill."""
        return self.root / "scratch" / f"{stage.name}-{stage.key}"

    def artifact(self, stage: Stage) -> Artifact:
        """The stage's finished artifact; raises LookupError where there is none."""
        record = read_record(self.directory(stage))
        if record is None:
            raise LookupError(f"stage {stage.node} has no artifact {stage.key}; run it first")
        return Artifact(directory=self.directory(stage), record=record)

    def inspect(self, stage: Stage, *, verify: bool = False) -> ArtifactState:
        """The state of a stage's artifact: files there with the right sizes (and, to verify, hashes), parents unchanged."""
        directory = self.directory(stage)
        record = self._read(directory)
        if record is None:
            return ArtifactState(started=(directory / "cells.parquet").is_file())
        damaged = damaged_files(directory, record, verify=verify)
        stale = [name for name in stage.parents if name not in record.parents]
        for name, then in record.parents.items():  # the stage's own, and what else it read
            if self._digest_of(self.place(then.stage, then.key)) != then.digest:
                stale.append(name)
        return ArtifactState(record=record, damaged=tuple(damaged), stale=tuple(stale))

    def _read(self, directory: Path) -> Record | None:
        """An artifact's record, whose digest is remembered for the children that ask for it."""
        before = _stamp(directory / NAME)
        record = read_record(directory)
        if record is not None and before is not None and before == _stamp(directory / NAME):
            self._digests[directory] = (before, record.digest)
        return record

    def _digest_of(self, directory: Path) -> str | None:
        """The digest of an artifact's content, None where there is none; read once while the record stays the same file.

        A record of 25,000 shards takes a tenth of a second to read, and every child asks for its digest.
        """
        known = self._digests.get(directory)
        if known is not None and known[0] == _stamp(directory / NAME):
            return known[1]
        record = self._read(directory)
        return None if record is None else record.digest

    def move_aside(self, stage: Stage) -> Path:
        """Puts the stage's directory among the replaced ones, so that its rows can be taken over and nothing is lost."""
        return self.retire(self.directory(stage))

    def retire(self, directory: Path) -> Path:
        """Puts an artifact's folder among the replaced ones; where it is then."""
        folder = self.root / "retired" / directory.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        number = 0
        while (aside := folder / f"{directory.name}{ASIDE}{number}").exists():
            number += 1
        os.rename(directory, aside)
        return aside

    def unrecord(self, stage: Stage, damaged: Sequence[str]) -> None:
        """Removes the record and the damaged files: what is left is an unfinished artifact, to be completed."""
        directory = self.directory(stage)
        for name in damaged:
            (directory / name).unlink(missing_ok=True)
        (directory / NAME).unlink(missing_ok=True)

    def siblings(self, stage: Stage) -> list[Path]:
        """Every directory of the same stage, finished or not, replaced ones too, newest last."""
        found = []
        for folder in (self.root / "artifacts" / stage.name, self.root / "retired" / stage.name):
            if folder.is_dir():
                with os.scandir(folder) as entries:
                    found += [(entry.stat().st_mtime_ns, Path(entry.path)) for entry in entries if entry.is_dir()]
        return [path for _, path in sorted(found)]

    @contextmanager
    def lock(self, stage: Stage) -> Iterator[bool]:
        """Holds the stage's lock; yields True where another run held it first. A killed process holds nothing."""
        folder = self.root / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{stage.name}-{stage.key}.lock").open("w") as file:
            waited = False
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waited = True
                fcntl.flock(file, fcntl.LOCK_EX)
            yield waited

    def forget_scratch(self, stage: Stage) -> None:
        """Removes the scratch folder of a finished stage."""
        shutil.rmtree(self.scratch(stage), ignore_errors=True)


def _stamp(path: Path) -> Stamp | None:
    """By which a file that was written anew is told from the one before; None where there is no file."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def damaged_files(directory: Path, record: Record, *, verify: bool = False) -> list[str]:
    """Names of files that are gone or of another size, and to `verify` of another hash, than recorded."""
    sizes: dict[str, int] = {}
    files = record.every_file()
    for folder in {"", *(name.rpartition("/")[0] for name, _ in files)}:  # strings: there may be 100,000 files
        prefix = f"{folder}/" if folder else ""
        if (directory / folder).is_dir():
            with os.scandir(directory / folder) as entries:
                sizes |= {prefix + entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
    bad = []
    for name, file in files:
        if sizes.get(name) != file.bytes or (verify and sha256_of(directory / name) != file.sha256):
            bad.append(name)
    return bad
