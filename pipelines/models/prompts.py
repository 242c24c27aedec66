"""Prompts that people bring: the interface of a source, and files of texts as one."""

from __future__ import annotations

import csv
import hashlib
import json
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from infra.config import Config, ConfigError
from infra.identity import fields, group_id, seed_of
from infra.store.tables import sha256_of
from pipelines.schemas.prompts import Split

LINES, TABLES = (".txt",), (".jsonl", ".csv", ".tsv", ".parquet")
SEPARATORS = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True)
class PromptText:
    """One prompt of a source."""

    text: str
    split: Split
    task: str = ""
    """What kind of prompt it is: results are summarised by it."""
    expectation: str = ""
    """What a checker asks of the picture, as canonical JSON; jurors never see it."""
    place: str = ""
    """Origin: a file and a line (from 1) or row (from 0), or the name of the model that wrote it."""
    parent: str | None = None
    """Id of the prompt that it was made from."""


class PromptSource(Config, ABC):
    """Where prompts come from; its fields are its identity."""

    @abstractmethod
    def prompts(self) -> Iterator[PromptText]:
        """Every prompt, in an order that is always the same."""

    def count(self) -> int | None:
        """How many there are, where that is known without reading them."""
        return None


class Texts(PromptSource):
    """A file of prompts, or a folder of such files: a prompt per line (.txt), or tables (.jsonl, .csv, .tsv, .parquet).

    Published sets are read as they are: GenEval's evaluation_metadata.jsonl (task_column="tag"), PartiPrompts.tsv
    (task_column="Category"), DrawBench's table (column="Prompts", task_column="Category").

    Texts(path="prompts.txt", evaluation_share=0.2)
    """

    path: str
    """A file, or a folder whose files of these kinds are read in the order of their names."""
    column: str = "prompt"
    """The column of a table that holds the text; capitals do not matter where only one column has the name."""
    task_column: str | None = None
    """The column that holds the kind of prompt."""
    parent_column: str | None = None
    """The column that holds the text that a prompt was made from: a rewritten prompt keeps the id of its original."""
    split: Literal["hash", "column", "train", "evaluation"] = "hash"
    """By a hash of the text (of the original, where there is one: its rewritings stay together), by the column `split`,
    or all prompts in one split."""
    evaluation_share: float = Field(0.1, ge=0, le=1)
    """Share of the prompts that split "hash" holds out."""

    def identity(self) -> dict[str, Any]:
        """The content of every file, and how it is read; never where the files lie."""
        digests = [sha256_of(path) for path in self.files()]
        content = hashlib.sha256("\n".join(digests).encode()).hexdigest()[:24]
        options = fields(self)
        del options["path"]
        return {"texts": content} | options

    def files(self) -> list[Path]:
        """The files; raises ConfigError where there is none."""
        path = Path(self.path)
        found = sorted(path.iterdir()) if path.is_dir() else [path]
        kept = [file for file in found if file.is_file() and file.suffix in (*LINES, *TABLES)]
        if not kept:
            kinds = ", ".join((*LINES, *TABLES))
            raise ConfigError(
                f"{self.path}: no file of prompts there; give a file, or a folder of files, ending in {kinds}"
            )
        return kept

    def prompts(self) -> Iterator[PromptText]:
        """File by file; blank lines are skipped, blank prompts of a table are refused."""
        for file in self.files():
            for place, row in _rows(file):
                text = row["prompt"] if file.suffix in LINES else row[_named(self.column, row, place)]
                if not isinstance(text, str) or not text.strip():
                    raise ConfigError(f"{place}: the prompt is {text!r}; write a text, or take the row out")
                if not text.isprintable() and (unfit := [c for c in text if _unfit(c)]):
                    raise ConfigError(f"{place}: the prompt holds {unfit[0]!r}, which is no text; take it out")
                task = row[_named(self.task_column, row, place)] if self.task_column and file.suffix in TABLES else None
                original = str(row.get(self.parent_column) or "").strip() if self.parent_column else ""
                parent = group_id(original) if original else None
                split = self._split(original or text.strip(), row, place)
                yield PromptText(text.strip(), split, task=str(task or ""), place=place, parent=parent)

    def _split(self, text: str, row: dict[str, Any], place: str) -> Split:
        if self.split == "hash":
            return "evaluation" if seed_of("split", text) < self.evaluation_share * 2**63 else "train"
        if self.split != "column":
            return self.split
        given = row.get("split")
        if given not in ("train", "evaluation"):
            raise ConfigError(f"{place}: split is {given!r}; write train or evaluation, or choose another `split`")
        return given


def _named(column: str, row: dict[str, Any], place: str) -> str:
    """The row's name of a column; raises ConfigError where it has none, or several that differ in capitals only."""
    found = [column] if column in row else [name for name in row if name.casefold() == column.casefold()]
    if len(found) != 1:
        raise ConfigError(f"{place}: no column {column!r}; it has {', '.join(map(str, row))}; name one of them")
    return found[0]


def _unfit(character: str) -> bool:
    """Whether it is a control character other than tab and line ends, or half of a surrogate pair."""
    return unicodedata.category(character) == "Cs" or (
        unicodedata.category(character) == "Cc" and character not in "\t\n\r"
    )


def _rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row with its place; raises ConfigError for a file that does not read, naming the line."""
    try:
        if file.suffix == ".parquet":
            import pyarrow.parquet

            rows = pyarrow.parquet.read_table(file).to_pylist()
            yield from ((f"{file.name} row {number}", row) for number, row in enumerate(rows))
        elif file.suffix in SEPARATORS:
            yield from _separated(file)
        else:
            for number, line in _lines(file):
                if line.strip():
                    row = {"prompt": line} if file.suffix in LINES else _object(line, f"{file.name}:{number}")
                    yield f"{file.name}:{number}", row
    except ConfigError:
        raise
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} does not read as {file.suffix[1:]}: {error}") from error


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, from 1; a byte order mark and the ends of lines are left out."""
    with file.open("rb") as opened:
        for number, data in enumerate(opened, start=1):
            try:
                yield number, data.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise ConfigError(
                    f"{file.name}:{number}: this is not UTF-8 ({error.reason}); save the file as UTF-8"
                ) from error


def _object(line: str, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ConfigError(f"{place}: this does not read as JSON: {error}") from error
    if not isinstance(row, dict):
        raise ConfigError(f"{place}: this is no JSON object; write one per line, with the column of the prompt")
    return row


def _separated(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of a table of values between commas or tabs, of which the first line names the columns."""
    # A tab-separated file quotes nothing by custom: a quotation mark in it is one.
    quoting = csv.QUOTE_NONE if file.suffix == ".tsv" else csv.QUOTE_MINIMAL
    csv.field_size_limit(2**24)
    lines = (line + "\n" for _, line in _lines(file))
    reader = csv.reader(lines, delimiter=SEPARATORS[file.suffix], quoting=quoting, strict=True)
    place = f"{file.name}:1"
    try:
        names = next(reader, [])
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"{place}: two columns are called {name!r}; rename one")
        last = reader.line_num
        for values in reader:
            place, last = f"{file.name}:{last + 1}", reader.line_num
            if values and len(values) != len(names):
                raise ConfigError(
                    f"{place}: {len(values)} values for {len(names)} columns; quote a text that has a comma in it"
                )
            if values:
                yield place, dict(zip(names, values, strict=True))
    except csv.Error as error:
        raise ConfigError(f"{file.name}:{reader.line_num}: this does not read as {file.suffix[1:]}: {error}") from error
