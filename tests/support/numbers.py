"""A DAG of numbers: a cheap source, a row-wise stage with faults on demand, and a one-piece sum."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pyarrow as pa
from pydantic import Field

from infra.dag.stage import Context, Inputs, Places, Resources, RowStage, RunInputs, Stage, TableStage, Worker
from infra.identity import group_id, row_id


@dataclass(frozen=True)
class Number:
    """A number and its content id."""

    id: str
    value: int


@dataclass(frozen=True)
class Square:
    """A number's square."""

    id: str
    value: int
    square: int


@dataclass(frozen=True)
class Total:
    """The sum of all squares."""

    total: int
    rows: int


class Numbers(TableStage):
    """0 … count - 1."""

    name: ClassVar = "numbers"
    row: ClassVar = Number
    cheap: ClassVar = True
    count: int = Field(10, ge=0)

    def run(self, context: Context) -> Iterator[Number]:
        del context
        for value in range(self.count):
            yield Number(row_id(group_id(str(value)), value), value)


class Squarer:
    """Squares; appends what it computes to a journal; raises, exits or sleeps where told."""

    def __init__(self, *, journal: str, faults: str, pause_s: float) -> None:
        self.journal = journal
        self.faults = faults
        self.pause_s = pause_s

    def open(self, device: str, places: Places) -> None:
        fault = Path(self.faults) if self.faults else None
        told = fault.read_text().split() if fault and fault.exists() else []
        self.told = dict(word.split("=") for word in told)
        if self.told.get("open") == "exit":
            os._exit(7)
        print("squares are computed here", flush=True)
        if self.told.get("open") == "raise":
            raise RuntimeError("no weights here")

    def run(self, cells: pa.Table) -> list[Square | Exception]:
        rows = cells.to_pylist()
        for row in rows:
            fault = self.told.get(str(row["value"]))
            if fault == "raise":
                raise ValueError(f"cannot square {row['value']}")
            if fault == "exit":
                os._exit(9)
            if fault == "sleep":
                time.sleep(3600)
        time.sleep(self.pause_s)
        bad = {name for name, fault in self.told.items() if fault == "give"}
        given = [ValueError(f"no square of {r['value']}") if str(r["value"]) in bad else None for r in rows]
        if self.journal:
            with open(self.journal, "a") as file:
                file.write("".join(f"{row['value']}\n" for row in rows))
        return [error or Square(row["id"], row["value"], row["value"] ** 2) for error, row in zip(given, rows, strict=True)]


class Squares(RowStage):
    """Squares of the numbers, on actors."""

    name: ClassVar = "squares"
    row: ClassVar = Square
    numbers: Numbers
    journal: str = Field("", exclude=True)
    faults: str = Field("", exclude=True)
    pause_s: float = Field(0.0, exclude=True)

    def cells(self, inputs: Inputs) -> pa.Table:
        return inputs.table(self.numbers, ["id", "value"])

    def worker(self, inputs: RunInputs) -> Worker:
        del inputs
        return Squarer(journal=self.journal, faults=self.faults, pause_s=self.pause_s)


class Sum(TableStage):
    """The sum of the squares, scaled."""

    name: ClassVar = "sum"
    row: ClassVar = Total
    squares: Squares
    scale: int = Field(1, ge=1)

    def run(self, context: Context) -> Iterator[Total]:
        values = context.table(self.squares, ["square"])["square"].to_pylist()
        context.metric("rows", len(values))
        yield Total(total=self.scale * sum(values), rows=len(values))


def numbers(
    *,
    count: Annotated[int, Field(ge=0, le=10_000_000, description="how many numbers")] = 10,
    scale: Annotated[int, Field(ge=1)] = 1,
    shard_rows: Annotated[int, Field(ge=1)] = 4,
    workers: Annotated[int, Field(ge=1)] = 1,
    stall_s: float = 60.0,
    max_error_share: Annotated[float, Field(ge=0, le=1)] = 0.25,
    journal: str = "",
    faults: str = "",
    pause_s: float = 0.0,
) -> Stage:
    """numbers -> squares -> sum."""
    resources = Resources(workers=workers, cpus=0.5, stall_s=stall_s)
    options: dict[str, Any] = {"journal": journal, "faults": faults, "pause_s": pause_s}
    squares = Squares(
        numbers=Numbers(count=count, resources=resources),
        shard_rows=shard_rows,
        max_error_share=max_error_share,
        resources=resources,
        **options,
    )
    return Sum(squares=squares, scale=scale, resources=resources)
