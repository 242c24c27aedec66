"""The datasets of runs as DuckDB views, over exactly the files the records list.

    {stage}            rows, without pictures        {stage}_media          with pictures
    {stage}_{table}    a side table                  {stage}_errors         quarantined rows
    runs  run_stages  artifacts  artifact_parents    what was run, of what, from what: lineage is a join

A file that is gone or of another size than recorded makes its view unavailable; only whoever asks for that view is told.
Hashes are not checked here (`salon plan --verify` does). The connection can read these files and nothing else: DuckDB
refuses every other path, and only SELECT statements are passed to it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from infra.config import ConfigError
from infra.dag.shards import RowError
from infra.store.artifacts import Store
from infra.store.record import Record, read_record
from infra.store.runs import read_runs
from infra.store.tables import FileRecord, schema_of

SQL_TYPES = {pa.string(): "VARCHAR", pa.int64(): "BIGINT", pa.float64(): "DOUBLE", pa.bool_(): "BOOLEAN"}
TEXT, WHOLE = pa.string(), pa.int64()
CATALOG: dict[str, pa.Schema] = {
    "runs": pa.schema([(n, TEXT) for n in ("run", "recipe", "status", "started", "commit", "arguments")]),
    "run_stages": pa.schema([(n, TEXT) for n in ("run", "node", "stage", "key", "state")]),
    "artifacts": pa.schema(
        [("stage", TEXT), ("key", TEXT), ("version", WHOLE)]
        + [(n, WHOLE) for n in ("rows", "error_rows", "computed_rows", "reused_rows")]
        + [("seconds", pa.float64()), ("bytes", WHOLE), ("files", WHOLE), ("finished", TEXT), ("digest", TEXT)]
        + [("commit", TEXT), ("parents", pa.list_(TEXT)), ("metrics", TEXT)]
    ),
    "artifact_parents": pa.schema([(n, TEXT) for n in ("stage", "key", "field", "parent_stage", "parent_key", "digest")]),
}


def quoted(text: str) -> str:
    """A string literal."""
    return "'" + text.replace("'", "''") + "'"


def named(name: str) -> str:
    """An identifier."""
    return '"' + name.replace('"', '""') + '"'


def holds_media(kind: pa.DataType) -> bool:
    """Whether a column of this type holds pictures or other bytes."""
    if pa.types.is_list(kind):
        return holds_media(kind.value_type)
    if pa.types.is_struct(kind):
        return any(holds_media(kind.field(i).type) for i in range(kind.num_fields))
    return pa.types.is_binary(kind)


def records_of(store: Store) -> list[Record]:
    """The record of every finished artifact, replaced ones left out; oldest first."""
    found = [read_record(folder) for folder in store.folders()]
    return sorted((record for record in found if record), key=lambda record: (record.finished, record.stage, record.key))


@dataclass(frozen=True)
class Piece:
    """One table of one artifact, as one run used it."""

    run: str
    node: str
    directory: Path
    files: tuple[FileRecord, ...]

    @cached_property
    def paths(self) -> list[str]:
        """The Parquet files of the table."""
        return [str(self.directory / file.name) for file in self.files]

    @cached_property
    def schema(self) -> pa.Schema:
        """Types from the files themselves; quarantined rows of a stage that has none have no file."""
        return pq.read_schema(self.paths[0]) if self.files else schema_of(RowError)

    def damage(self) -> str:
        """What is wrong with its files, "" where nothing is."""
        for path, file in zip(self.paths, self.files, strict=True):
            try:
                size = Path(path).stat().st_size
            except FileNotFoundError:
                return f"{path} is gone"
            if size != file.bytes:
                return f"{path} has {size} bytes, {file.bytes} were written"
        return ""

    def select(self, columns: Sequence[str], labels: Sequence[str]) -> str:
        """SELECT over its files."""
        extra = [f"{quoted(getattr(self, label))} AS {named(label)}" for label in labels]
        if self.files:
            chosen = ", ".join(extra + [named(column) for column in columns])
            return f"SELECT {chosen} FROM read_parquet([{', '.join(map(quoted, self.paths))}])"
        typed = [f"CAST(NULL AS {SQL_TYPES[self.schema.field(c).type]}) AS {named(c)}" for c in columns]
        return f"SELECT {', '.join(extra + typed)} WHERE false"


@dataclass
class Database:
    """An in-memory DuckDB with the views of some runs. `unioned`: every view has a column `run`.

    What a program asks of a store, here of one that is still empty (`salon sql` is the same from the command line):

    >>> from tempfile import TemporaryDirectory
    >>> from infra.store.runs import read_runs
    >>> with TemporaryDirectory() as folder:
    ...     store = Store(Path(folder))
    ...     database = Database(store, read_runs(store).readable, unioned=True)
    ...     columns, rows = database.query("SELECT stage, rows, seconds FROM artifacts ORDER BY seconds DESC LIMIT 3")
    >>> columns, list(rows)
    (['stage', 'rows', 'seconds'], [])
    """

    store: Store
    runs: list[dict[str, Any]]
    unioned: bool = False
    unavailable: dict[str, str] = field(default_factory=dict)  # view, or all of a stage -> why
    missing: dict[str, str] = field(default_factory=dict)  # stage without artifact -> why
    _records: dict[tuple[str, str], Record | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        offline: dict[str, Any] = {"autoinstall_known_extensions": False, "autoload_known_extensions": False}
        self.connection = duckdb.connect(":memory:", config=offline)
        paths: set[str] = set()
        found = self._pieces()
        several = self._views_of_several_nodes()
        for name, pieces in found.items():
            self._create(name, pieces, by_node=name in several)
            paths |= {path for piece in pieces for path in piece.paths}
        self._catalog()
        self.connection.execute(f"SET allowed_paths = [{', '.join(map(quoted, sorted(paths)))}]")
        for setting, value in (("python_enable_replacements", 0), ("enable_external_access", 0), ("lock_configuration", 1)):
            self.connection.execute(f"SET {setting} = {value}")

    def _record(self, stage: str, key: str) -> Record | None:
        if (stage, key) not in self._records:
            self._records[stage, key] = read_record(self.store.place(stage, key))
        return self._records[stage, key]

    def _outcomes(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for run in self.runs:
            for outcome in run["stages"]:
                yield run["name"], outcome

    def _views_of_several_nodes(self) -> set[str]:
        """Views that need a column `node`: a run has more than one node of their stage."""
        nodes: dict[str, set[str]] = {}
        for run, outcome in self._outcomes():
            nodes.setdefault(f"{run}\0{outcome['stage']}", set()).add(outcome["node"])
        stages = {name.split("\0")[1] for name, found in nodes.items() if len(found) > 1}
        tables = {(s, t) for (s, _), record in self._records.items() if record and s in stages for t in record.tables}
        return stages | {f"{stage}_errors" for stage in stages} | {f"{stage}_{table}" for stage, table in tables}

    def _pieces(self) -> dict[str, list[Piece]]:
        pieces: dict[str, list[Piece]] = {}
        for run, outcome in self._outcomes():
            stage, key, node = outcome["stage"], outcome["key"], outcome["node"]
            record = self._record(stage, key)
            directory = self.store.place(stage, key)
            if record is None:
                self.missing[stage] = f"{directory} is not there any more, or being computed; salon run makes it anew"
                continue
            errors = (record.errors,) if record.errors else ()
            tables = {stage: tuple(record.files), f"{stage}_errors": errors}
            tables |= {f"{stage}_{name}": tuple(files) for name, files in record.tables.items()}
            for name, files in tables.items():
                pieces.setdefault(name, []).append(Piece(run, node, directory, files))
        return pieces

    def _create(self, name: str, pieces: Sequence[Piece], *, by_node: bool) -> None:
        """The view of a table, and one with its pictures where it has some."""
        if damage := next(filter(None, (piece.damage() for piece in pieces)), ""):
            self.unavailable[name] = self.unavailable[f"{name}_media"] = f"{damage}; salon run computes it anew"
            return
        labels = [*(["run"] if self.unioned else []), *(["node"] if by_node else [])]
        columns = [piece.schema.names for piece in pieces]
        media = {f.name for piece in pieces for f in piece.schema if holds_media(f.type)}
        for view, hidden in ((name, media), *([(f"{name}_media", set())] if media else [])):
            chosen = [[name for name in names if name not in hidden] for names in columns]
            selects = [piece.select(names, labels) for piece, names in zip(pieces, chosen, strict=True)]
            self.connection.execute(f"CREATE VIEW {named(view)} AS {' UNION ALL BY NAME '.join(selects)}")

    def _catalog(self) -> None:
        rows = {name: list(found) for name, found in _catalog_rows(self.store).items()}
        for name, schema in CATALOG.items():
            table = pa.Table.from_pylist(rows[name], schema=schema)
            self.connection.register("salon_catalog", table)
            self.connection.execute(f"CREATE TABLE {name} AS SELECT * FROM salon_catalog")
            self.connection.unregister("salon_catalog")

    def query(self, sql: str) -> tuple[list[str], Iterator[tuple[Any, ...]]]:
        """Column names and rows of one SELECT; raises ConfigError with DuckDB's message, or with what is unavailable."""
        try:
            statements = self.connection.extract_statements(sql)
        except duckdb.Error as error:
            raise ConfigError(str(error)) from error
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise ConfigError("give one SELECT (or FROM, WITH, SHOW, DESCRIBE, SUMMARIZE); datasets are read-only")
        self._require_available(sql)
        try:
            cursor = self.connection.execute(sql)
        except duckdb.Error as error:
            raise ConfigError(f"{error}{self._hint(error)}") from error
        return [column[0] for column in cursor.description or ()], _fetch(cursor)

    def _require_available(self, sql: str) -> None:
        for name in sorted(_tables_in(sql)):
            if name in self.unavailable:
                raise ConfigError(f"{name} is damaged: {self.unavailable[name]}")
            for stage, why in self.missing.items():
                if name == stage or name.startswith(f"{stage}_"):
                    raise ConfigError(f"{name} is not there: {why}")

    def _hint(self, error: duckdb.Error) -> str:
        if not isinstance(error, duckdb.CatalogException):
            return ""
        names = [row[0] for row in self.connection.execute("SHOW TABLES").fetchall()]
        run = "all runs" if self.unioned else f"run {self.runs[0]['name']} ({self.runs[0]['status']})"
        return f"\n\n{run} has the views {', '.join(names)}"


def _tables_in(sql: str) -> set[str]:
    """Names of the tables a query reads, as far as they can be told beforehand."""
    with duckdb.connect(":memory:", config={"enable_external_access": "false"}) as empty:
        try:
            return empty.get_table_names(sql.removeprefix("DESCRIBE ").removeprefix("SUMMARIZE "))
        except duckdb.Error:
            return set()


def _fetch(cursor: duckdb.DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    try:
        while rows := cursor.fetchmany(10_000):
            yield from rows
    except duckdb.Error as error:
        raise ConfigError(str(error)) from error


def _catalog_rows(store: Store) -> dict[str, Iterable[dict[str, Any]]]:
    runs, records = read_runs(store).readable, records_of(store)
    arguments = [json.dumps(run["arguments"], sort_keys=True) for run in runs]
    return {
        "runs": [run | {"run": run["name"], "arguments": text} for run, text in zip(runs, arguments, strict=True)],
        "run_stages": [outcome | {"run": run["name"]} for run in runs for outcome in run["stages"]],
        "artifacts": [_artifact_row(record) for record in records],
        "artifact_parents": [
            {"stage": r.stage, "key": r.key, "field": f, "parent_stage": p.stage, "parent_key": p.key, "digest": p.digest}
            for r in records
            for f, p in r.parents.items()
        ],
    }


def _artifact_row(record: Record) -> dict[str, Any]:
    files = record.every_file()
    counted = {"bytes": sum(file.bytes for _, file in files), "files": len(files), "digest": record.digest}
    parents = [parent.key for parent in record.parents.values()]
    plain = {name: getattr(record, name) for name in CATALOG["artifacts"].names if name in Record.__dataclass_fields__}
    return plain | counted | {"parents": parents, "metrics": json.dumps(record.metrics, sort_keys=True)}
