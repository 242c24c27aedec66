"""The record of an artifact: what it is, what it is made of, and what it was made from.

Written last: no record, no artifact. Its `digest` is a hash of the hashes of all its files; a child stores the digest of
each parent it read, so that an artifact whose parent has changed since (a quarantined row retried, say) is no hit.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from infra.store.tables import FileRecord, write_atomic

FORMAT = 1
NAME = "artifact.json"


class NewerRecord(RuntimeError):
    """A record in a newer format than this version of Salon can read."""


@dataclass(frozen=True)
class ParentRecord:
    """One parent as it was when the artifact was computed."""

    stage: str
    key: str
    digest: str


@dataclass(frozen=True)
class Record:
    """The complete record of one finished artifact."""

    stage: str
    version: int
    key: str
    identity: dict[str, Any]
    parents: dict[str, ParentRecord]
    files: list[FileRecord]
    tables: dict[str, list[FileRecord]]
    weights: list[FileRecord]
    errors: FileRecord | None
    rows: int
    error_rows: int
    computed_rows: int
    reused_rows: int
    seconds: float
    finished: str  # UTC, ISO 8601
    source: dict[str, str]  # file -> hash of its normalised source
    libraries: dict[str, str]
    commit: str
    metrics: dict[str, Any] = field(default_factory=dict)
    hashes: FileRecord | None = None  # of each row: by these a child tells whether what it looks up has changed
    format: int = FORMAT

    @property
    def digest(self) -> str:
        """Hash over the names and hashes of all files of rows and weights: the content, whatever the way it came to be.

        What is quarantined is no part of it: a row that fails again, with another traceback, changes nothing downstream.
        """
        every = [*self.files, *(f for fs in self.tables.values() for f in fs), *self.weights]
        listing = sorted((f.name, f.sha256) for f in every)
        return hashlib.sha256(repr(listing).encode()).hexdigest()[:24]

    def every_file(self) -> list[tuple[str, FileRecord]]:
        """(path relative to the artifact, record) of every file."""
        found = [(f.name, f) for f in self.files]
        found += [(f.name, f) for files in self.tables.values() for f in files]
        found += [(f"weights/{f.name}", f) for f in self.weights]
        return found + [(f.name, f) for f in (self.errors, self.hashes) if f]

    def write(self, directory: Path) -> None:
        """Writes the record into `directory`, which makes it an artifact."""
        text = json.dumps(asdict(self), indent=1, sort_keys=True, ensure_ascii=False)
        write_atomic(directory / NAME, text.encode())


def read_record(directory: Path) -> Record | None:
    """The record of a directory, None if it has none; raises NewerRecord for a later format."""
    path = directory / NAME
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except json.JSONDecodeError:
        return None
    if data.get("format", 0) > FORMAT:
        raise NewerRecord(
            f"{path} was written by a newer Salon (record format {data['format']}, this one reads up to {FORMAT}); "
            "upgrade Salon, or use another --root"
        )
    data["parents"] = {name: ParentRecord(**parent) for name, parent in data["parents"].items()}
    for name in ("files", "weights"):
        data[name] = [FileRecord(**file) for file in data[name]]
    data["tables"] = {name: [FileRecord(**file) for file in files] for name, files in data["tables"].items()}
    for name in ("errors", "hashes"):
        data[name] = FileRecord(**data[name]) if data.get(name) else None
    return Record(**data)
