"""Streams of records from Parquet, CSV, JSON and JSON lines, each with its place; what does not parse is a `Fault`.

JSON lists are parsed incrementally here because the standard library reads a list only as a whole.
"""

from __future__ import annotations

import csv
import json
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, ClassVar, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.exchange.media import inside
from pipelines.exchange.pairs import BadRow, Fault, Format, Listing, Media, Row, column_of

BATCH = 2048
CHUNK = 1 << 20
LONGEST = 16 << 20
"""Most characters of one JSON value; a longer one is taken as a broken file."""
csv.field_size_limit(LONGEST)


@dataclass(frozen=True)
class SourceRecord:
    """One record of a file: its values by the format's column names."""

    place: str
    number: int
    values: dict[str, Any]


class Records(Format):
    """A format whose files are tables, with one or several pairs per record."""

    endings: ClassVar[tuple[str, ...]]
    """Endings of the files that hold rows."""
    required: ClassVar[tuple[str, ...]]
    """Columns that every file or record must have."""
    media: ClassVar[tuple[str, ...]] = ()
    """Columns that hold or name a picture or clip."""

    @abstractmethod
    def pairs(self, record: SourceRecord) -> Iterable[Row]:
        """The pairs of a record; raises BadRow if it cannot be used."""

    def sources(self, listing: Listing) -> Listing:
        """Every file with one of the format's endings."""
        return {name: listing[name] for name in sorted(listing) if name.endswith(self.endings)}

    def rows(self, folder: Path, name: str, *, renamed: Mapping[str, str]) -> Iterator[Row | Fault]:
        """The pairs of one file; each pair of a record has its own number."""
        numbers, path = count(), folder / name
        try:
            inside(folder, name)
        except BadRow as error:
            yield Fault("", 0, str(error))
            return
        for record in self.records(path, renamed=renamed):
            if isinstance(record, Fault):
                yield Fault(record.place, record.number if path.suffix == ".parquet" else next(numbers), record.reason)
                continue
            try:
                found = list(self.pairs(record))
            except BadRow as error:
                found = [Fault(record.place, record.number, str(error))]
            for row in found:
                yield row if path.suffix == ".parquet" else renumbered(row, next(numbers))

    def records(self, path: Path, *, renamed: Mapping[str, str]) -> Iterator[SourceRecord | Fault]:
        """Records of a file, parsed according to its ending."""
        if path.suffix == ".parquet":
            yield from self._parquet(path, renamed)
        elif path.suffix == ".csv":
            yield from self._csv(path, renamed)
        else:
            for found in json_values(path):
                yield found if isinstance(found, Fault) else self._keyed(found, renamed)

    def _keyed(self, record: SourceRecord, renamed: Mapping[str, str]) -> SourceRecord | Fault:
        own = record.values
        if not isinstance(own, dict):
            return Fault(record.place, record.number, f"it is a {type(own).__name__}, not an object")
        values = {name: own[key] for name, key in column_of(renamed, own).items() if self.knows(name)}
        for name in self.required:
            if values.get(name) is None:
                said = "is null" if name in values else "is missing"
                return Fault(record.place, record.number, f"key {name!r} {said}; it has {', '.join(own)}")
        return SourceRecord(record.place, record.number, values)

    def _lacking(self, names: Mapping[str, str], available: Iterable[str]) -> Fault | None:
        for name in self.required:
            if name not in names:
                return Fault(
                    "", 0, f"no column {name!r}; it has {', '.join(available)}; name another with --map OLD={name}"
                )
        return None

    def _csv(self, path: Path, renamed: Mapping[str, str]) -> Iterator[SourceRecord | Fault]:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            line, number = 0, -1
            try:
                header = next(reader, [])
                names = column_of(renamed, header)
                if lacking := self._lacking(names, header):
                    yield lacking
                    return
                while True:
                    line, number = reader.line_num + 1, number + 1
                    fields = next(reader, None)
                    if fields is None:
                        return
                    if not fields:
                        continue
                    if len(fields) != len(header):
                        reason = f"it has {len(fields)} fields, the header has {len(header)}"
                        yield Fault(f"line {line}", number, reason)
                        continue
                    given = dict(zip(header, fields, strict=True))
                    yield SourceRecord(f"line {line}", number, {n: given[own] for n, own in names.items() if self.knows(n)})
            except (csv.Error, UnicodeDecodeError) as error:
                yield Fault(f"line {line}", max(number, 0), f"it does not parse from here on: {error}")

    def _parquet(self, path: Path, renamed: Mapping[str, str]) -> Iterator[SourceRecord | Fault]:
        number = 0
        try:
            with pq.ParquetFile(path, pre_buffer=False, buffer_size=CHUNK) as file:
                schema = file.schema_arrow
                names = column_of(renamed, schema.names)
                if lacking := self._lacking(names, schema.names):
                    yield lacking
                    return
                known = {name: own for name, own in names.items() if self.knows(name)}
                held = {name: own for name, own in known.items() if name in self.media and _holds(schema.field(own).type)}
                light = [own for name, own in known.items() if name not in held]
                light += [f"{own}.path" for own in held.values() if _has_path(schema.field(own).type)]
                for batch in file.iter_batches(BATCH, columns=light, use_threads=False):
                    for values in batch.to_pylist():
                        given = {name: values.get(own) for name, own in known.items()}
                        given |= {name: Media(own, (values.get(own) or {}).get("path") or "") for name, own in held.items()}
                        yield SourceRecord(f"row {number}", number, given)
                        number += 1
        except (OSError, pa.ArrowException) as error:
            where, what = ("", "") if number == 0 else (f"row {number}", " from here on")
            yield Fault(where, number, f"it cannot be read{what}: {error}")


def renumbered(row: Row | Fault, number: int) -> Row | Fault:
    """The row with another number."""
    return replace(row, number=number)


def _holds(kind: pa.DataType) -> bool:
    """Whether a column of this type holds files rather than their names."""
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_struct(kind)


def _has_path(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and kind.get_field_index("path") >= 0


def json_values(path: Path) -> Iterator[SourceRecord | Fault]:
    """The values of a JSON list or of JSON lines, each with the line in which it begins."""
    with path.open("rb") as file:
        start = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
    if path.suffix != ".jsonl" and start.startswith(b"["):
        with path.open(encoding="utf-8-sig") as file:
            yield from _items(file)
    else:
        yield from _lines(path)


def _lines(path: Path) -> Iterator[SourceRecord | Fault]:
    with path.open("rb") as file:
        for number, line in enumerate(file):
            if not line.strip():
                continue
            try:
                yield SourceRecord(f"line {number + 1}", number, json.loads(line))
            except (ValueError, RecursionError) as error:
                yield Fault(f"line {number + 1}", number, f"it does not parse: {error}")


def _items(file: TextIO) -> Iterator[SourceRecord | Fault]:
    """The items of a JSON list, with one chunk of the file in memory at a time."""
    decode = json.JSONDecoder().raw_decode
    text, at, line, number, closed = "", 0, 1, 0, False
    expected = "["
    while True:
        while at < len(text) and (text[at].isspace() or text[at] == expected):
            line += text[at] == "\n"
            expected = "" if text[at] == expected else expected
            at += 1
        if at < len(text) and text[at] == "]":
            return
        if at < len(text):
            try:
                value, end = decode(text, at)
            except (ValueError, RecursionError) as error:
                if closed or len(text) - at > LONGEST:
                    yield Fault(f"line {line}", number, f"it does not parse from here on: {error}")
                    return
            else:
                yield SourceRecord(f"line {line}", number, value)
                line += text.count("\n", at, end)
                at, number, expected = end, number + 1, ","
                continue
        elif closed:
            yield Fault(f"line {line}", number, "the list does not end: the file is cut off here")
            return
        try:
            more = file.read(CHUNK)
        except UnicodeDecodeError as error:
            yield Fault(f"line {line}", number, f"it is not UTF-8 from about here on: {error}")
            return
        text, at, closed = text[at:] + more, 0, not more


def text_of(record: SourceRecord, name: str) -> str:
    """A value that must be a text; "" if there is none."""
    value = record.values.get(name)
    if value is None:
        return ""
    if isinstance(value, list | dict | Media | bytes):
        raise BadRow(f"{name} holds a {type(value).__name__}, not a text")
    return str(value)


def number_of(record: SourceRecord, name: str) -> float | None:
    """A value that must be a number, or None; an empty field is None."""
    value = record.values.get(name)
    if value is None or value == "":
        return None
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise BadRow(f"{name} is {value!r}, which is not a number") from error


def media_of(record: SourceRecord, name: str) -> Media:
    """Where a picture or clip is; raises BadRow if the value names none."""
    value = record.values.get(name)
    if isinstance(value, Media):
        return value
    if isinstance(value, dict):
        value = value.get("path")
    if not isinstance(value, str) or not value:
        raise BadRow(f"{name} names no file: {value!r}")
    return Media(path=value)
