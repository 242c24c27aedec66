"""A folder of pairs in any format as Arrow batches: one row per pair, without its pictures, with its error if it has one.

Ids are hashes of the file's content, the row's number, the contents of the files that the row names, and the reading
options. Adding a file to the folder adds rows and changes no other id.
"""

from __future__ import annotations

import math
import posixpath
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from infra.config import ConfigError
from infra.identity import group_of, key_of, row_id
from infra.store.files import Manifest, manifest
from pipelines.exchange.formats import format_named
from pipelines.exchange.media import CLIPS
from pipelines.exchange.pairs import CHOICES, BadRow, Fault, Format, Listing, Media, Row

VERSION = 1
"""Version of the reading; raise it by hand when the same files are to give other rows."""
BATCH = 4096
TEXT, NUMBER = pa.string(), pa.float64()
SCHEMA = pa.schema(
    [(name, TEXT) for name in ("pair_id", "file", "place", "error", "prompt", "choice")]
    + [("row", pa.int64()), ("agreement", NUMBER), ("score", NUMBER)]
    + [(f"{name}_{side}", TEXT) for side in "ab" for name in ("generator", "column", "path")]
    + [(name, pa.map_(TEXT, NUMBER)) for name in ("margins", "scores_a", "scores_b")]
    + [("subset", TEXT)]
)
SCORES = {"a": 1.0, "b": -1.0, "tie": 0.0}


def listing_of(folder: Path) -> Manifest:
    """The hash of every file below the folder by its name; hidden files and Markdown files (*.md) are left out."""
    return manifest(folder).only(lambda name: "/." not in f"/{name}")


def clips_in(folder: Path, format: Format) -> bool:
    """Whether a folder's pairs are clips, judged by the format, the file names' endings and the names of columns."""
    if len(format.holds) == 1:
        return format.holds[0] == "video"
    listing = listing_of(folder)
    if any(name.lower().endswith(CLIPS) for name in listing):
        return True
    return any(_has_column(folder / name, "video_a") for name in format.sources(listing) if name.endswith(".parquet"))


def _has_column(path: Path, name: str) -> bool:
    import pyarrow.parquet as pq

    try:
        return name in pq.read_schema(path).names
    except (OSError, pa.ArrowException):
        return False


def read_pairs(folder: Path, *, format: str, renamed: Mapping[str, str]) -> Iterator[pa.RecordBatch]:
    """Every pair of the folder, and every row or file that cannot be used, as batches of `SCHEMA`, ordered by file name.

    Raises ConfigError if the folder holds no file of the format.
    """
    kind, listing = format_named(format), listing_of(folder)
    sources = kind.sources(listing)
    if not sources:
        raise ConfigError(
            f"{folder} holds nothing of format {format} among its {len(listing)} files; {_near(kind, listing)}"
        )
    columns = _Columns(listing, settings=key_of([VERSION, format, dict(renamed)]))
    first: dict[bytes, str] = {}
    for name, digest in sources.items():
        columns.file, columns.digest = name, digest
        before = first.setdefault(bytes.fromhex(digest), name)
        if before != name:
            columns.add(Fault("", 0, f"the same content as {before}"), salt=name)
            continue
        for row in kind.rows(folder, name, renamed=renamed):
            columns.add(row)
            if len(columns) >= BATCH:
                yield columns.taken()
    yield columns.taken()


def _near(kind: Format, listing: Listing) -> str:
    endings = sorted({PurePosixPath(name).suffix or name for name in listing})[:8]
    wanted = ", ".join(getattr(kind, "endings", ("subfolders of pairs",)))
    return f"wanted: {wanted}; found: {', '.join(endings) or 'nothing'}"


class _Columns:
    """Collects rows as columns, one file after another."""

    def __init__(self, listing: Listing, *, settings: str) -> None:
        self.listing, self.settings = listing, settings
        self.file = self.digest = ""
        self.own: set[int] = set()
        self._clear()

    def _clear(self) -> None:
        self.values: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}

    def __len__(self) -> int:
        return len(self.values["pair_id"])

    def taken(self) -> pa.RecordBatch:
        """The rows collected since the last call."""
        batch = pa.RecordBatch.from_pydict(self.values, schema=SCHEMA)
        self._clear()
        return batch

    def add(self, row: Row | Fault, *, salt: str = "") -> None:
        """Adds one row. Its error is part of its id, since it may depend on other files."""
        values = dict.fromkeys(SCHEMA.names) | {"file": self.file, "place": row.place, "row": row.number}
        digests = ("", "")
        if isinstance(row, Row):
            values |= {name: getattr(row, name) for name in ("prompt", "choice", "agreement", "generator_a", "generator_b")}
            values |= {"score": SCORES.get(row.choice) if row.score is None else row.score}
            for name in ("margins", "scores_a", "scores_b"):
                values[name] = list(getattr(row, name).items()) or None
            values["subset"] = row.subset or None
            try:
                self._check(row)
                values["column_a"], values["path_a"], first = self._located(row.a)
                values["column_b"], values["path_b"], second = self._located(row.b)
                digests = (first, second)
                self._once(row)
            except BadRow as error:
                values["error"] = str(error)
        else:
            values["error"] = row.reason
        group = group_of(self.digest, f"{row.number:08x}")
        wrong = (values["error"] or "", salt)
        values["pair_id"] = row_id(group, "pair", self.settings, self.digest, row.place, row.number, *digests, *wrong)
        for name, value in values.items():
            self.values[name].append(value)

    def _check(self, row: Row) -> None:
        """Raises BadRow for a row that no format allows."""
        if not row.prompt.strip():
            raise BadRow("the prompt is empty")
        if row.choice not in CHOICES:
            raise BadRow(f"choice {row.choice!r} is none of a, b, tie")
        if not 0 <= row.agreement <= 1:
            raise BadRow(f"agreement {row.agreement!r} is not in [0, 1]")
        numbers = {"score": 0.0 if row.score is None else row.score}
        for what, given in (("margin", row.margins), ("score of a,", row.scores_a), ("score of b,", row.scores_b)):
            numbers |= {f"{what} {name}": value for name, value in given.items()}
        for name, value in numbers.items():
            if not math.isfinite(value):
                raise BadRow(f"{name} {value!r} is not finite")
        try:
            named = (*row.margins, *row.scores_a, *row.scores_b)
            "".join((row.prompt, row.generator_a, row.generator_b, row.subset, *named)).encode()
        except UnicodeEncodeError as error:
            raise BadRow(f"its text is not valid Unicode: {error}") from error

    def _once(self, row: Row) -> None:
        """Raises BadRow for an id that an earlier valid row has: the first valid row with an id counts."""
        if row.own and hash(row.own) in self.own:
            raise BadRow(f"id {row.own!r} occurs twice; the first pair with it is kept")
        self.own.add(hash(row.own))

    def _located(self, media: Media) -> tuple[str, str, str]:
        """Column, path inside the folder and the hash of the file, which a row's own column does not need."""
        if media.column:
            beside = self._found(media.path) if media.path else ""
            return media.column, "", self.listing.get(beside, "")
        if media.path.startswith("/") or "\\" in media.path or "://" in media.path:
            raise BadRow(f"{media.path!r} is no path relative to the folder")
        found = self._found(media.path)
        if not found:
            out = posixpath.normpath(posixpath.join(posixpath.dirname(self.file), media.path)).startswith("..")
            raise BadRow(f"{media.path!r} lies outside the folder" if out else f"there is no file {media.path!r}")
        return "", found, self.listing[found]

    def _found(self, path: str) -> str:
        """The name, relative to the folder, of the file that a row names; "" if there is none."""
        for place in _places(self.file):
            name = posixpath.normpath(posixpath.join(place, path))
            if name in self.listing:
                return name
        return ""


@lru_cache(maxsize=16)
def _places(file: str) -> tuple[str, ...]:
    """Folders that a path may be relative to: the pair's own, its file's, the root, one named like the file, `images`."""
    parent = posixpath.dirname(file)
    named = posixpath.join(parent, PurePosixPath(file).stem)
    return tuple(dict.fromkeys((file, parent, "", named, posixpath.join(parent, "images"), "images")))
