"""`salon sql "SELECT …"`: one view a stage over the files the records list, of the newest run or any by name.

Views: a stage's rows by its name, pictures in {stage}_media, side tables in {stage}_{table}, quarantined rows in
{stage}_errors; runs, run_stages, artifacts and artifact_parents hold the lineage. `SHOW TABLES` lists them.
"""

from __future__ import annotations

import base64
import csv
import json
import math
import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TextIO

from infra.store.runs import read_runs, run_named
from jobs.arguments import Parser, open_store, root_flag, run_flag


def main(argv: list[str]) -> int:
    """Exit status 0; 2: a wrong query, an unknown run, a damaged file."""
    parser = Parser(prog="salon sql", description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("query", help="one SELECT")
    root_flag(parser)
    which = parser.add_mutually_exclusive_group()
    run_flag(which)
    which.add_argument("--unioned", action="store_true", help="every view over all runs, with a column run")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="a JSON list of objects; bytes as base64")
    form.add_argument("--csv", action="store_true", help="CSV with a header")
    parsed = parser.parse_args(argv)

    from infra.store.views import Database

    store = open_store(parsed.root)
    runs = [run_named(store, parsed.run)]
    database = Database(store, read_runs(store).readable if parsed.unioned else runs, unioned=parsed.unioned)
    names, rows = database.query(parsed.query)
    names = distinct(names)
    write = write_json if parsed.json else write_csv if parsed.csv else write_table
    write(names, rows, sys.stdout)
    return 0


def distinct(names: Sequence[str]) -> list[str]:
    """Column names with repeated ones numbered."""
    found: list[str] = []
    for name in names:
        number, fresh = 1, name
        while fresh in found:
            fresh = f"{name}_{number}"
            number += 1
        found.append(fresh)
    return found


def plain(value: Any) -> Any:
    """A value as JSON has it: bytes as base64, numbers that JSON lacks as null, the rest as text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value)


def shown(value: Any) -> str:
    """A value for a person: bytes by their number."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, bytes | bytearray):
        return f"<{len(value)} bytes>"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {shown(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(shown, value)) + "]"
    return str(value).replace("\n", " ")


def write_json(names: Sequence[str], rows: Iterable[Sequence[Any]], out: TextIO) -> None:
    """A list of objects, written row by row."""
    separator = "[\n"
    for row in rows:
        out.write(separator + json.dumps(dict(zip(names, map(plain, row), strict=True)), ensure_ascii=False))
        separator = ",\n"
    out.write("[]\n" if separator == "[\n" else "\n]\n")


def write_csv(names: Sequence[str], rows: Iterable[Sequence[Any]], out: TextIO) -> None:
    """Comma-separated; lists and structs as JSON."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        values = map(plain, row)
        writer.writerow([json.dumps(v, ensure_ascii=False) if isinstance(v, list | dict) else v for v in values])


def lines(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    """An aligned table: numbers to the right, a header and a rule."""
    cells = [[shown(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    right = [bool(rows) and all(isinstance(v, int | float | None) for v in column) for column in zip(*rows, strict=True)]
    right = right or [False] * len(names)

    def line(values: Sequence[str]) -> str:
        placed = (v.rjust(w) if r else v.ljust(w) for v, w, r in zip(values, widths, right, strict=True))
        return "  ".join(placed).rstrip()

    yield line(names)
    yield "  ".join("─" * width for width in widths)
    yield from map(line, cells)


def write_table(names: Sequence[str], rows: Iterable[Sequence[Any]], out: TextIO) -> None:
    """Prints rows as an aligned table."""
    for line in lines(names, list(rows)):
        out.write(f"{line}\n")


if __name__ == "__main__":
    from jobs.cli import guarded

    sys.exit(guarded("sql", sys.argv[1:]))
