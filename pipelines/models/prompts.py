"""Prompts that people bring: the interface of a source, and files of texts as one."""

from __future__ import annotations

import hashlib
import json
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

LINES, TABLES = (".txt",), (".jsonl", ".csv", ".parquet")


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
    """A file of prompts, or a folder of such files: a prompt per line (.txt), or tables (.jsonl, .csv, .parquet).

    Texts(path="prompts.txt", evaluation_share=0.2)
    """

    path: str
    """A file, or a folder whose files of these kinds are read in the order of their names."""
    column: str = "prompt"
    """The column of a table that holds the text."""
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
                if self.column not in row and file.suffix not in LINES:
                    raise ConfigError(f"{place}: no column {self.column!r}; it has {', '.join(map(str, row))}")
                text = row["prompt"] if file.suffix in LINES else row[self.column]
                if not isinstance(text, str) or not text.strip():
                    raise ConfigError(f"{place}: the prompt is {text!r}; write a text, or take the row out")
                task = row.get(self.task_column) if self.task_column else None
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


def _rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row with its place; raises ConfigError for a file that does not read."""
    try:
        if file.suffix in (*LINES, ".jsonl"):
            for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
                if line.strip():
                    row = {"prompt": line} if file.suffix in LINES else json.loads(line)
                    if not isinstance(row, dict):
                        raise ValueError(f"line {number} is no object")
                    yield f"{file.name}:{number}", row
            return
        import pyarrow.csv
        import pyarrow.parquet

        table = pyarrow.csv.read_csv(file) if file.suffix == ".csv" else pyarrow.parquet.read_table(file)
        for number, row in enumerate(table.to_pylist()):
            yield f"{file.name} row {number}", row
    except ConfigError:
        raise
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} does not read as {file.suffix[1:]}: {error}") from error
