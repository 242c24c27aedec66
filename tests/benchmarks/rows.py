"""A row-wise stage over a million small rows against a plain pyarrow loop, and the memory it takes."""

from __future__ import annotations

import resource
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field

from actors.executor import RayExecutor
from infra.dag.run import Runner
from infra.dag.selection import Selection
from infra.dag.stage import Inputs, Places, Resources, RowStage, RunInputs, Worker
from infra.store.artifacts import Store
from infra.store.tables import schema_of
from tests.benchmarks.measure import Result
from tests.benchmarks.numbers import SquareRow
from tests.benchmarks.quiet import Quiet

ROWS = 1_000_000


class Squarer:
    """Squares a column."""

    def open(self, device: str, places: Places) -> None:
        """Nothing to load."""

    def run(self, cells: pa.Table) -> pa.Table:
        """A table of the row's schema."""
        values = cells["value"]
        return pa.Table.from_arrays([cells["id"], values, pc.multiply(values, values)], schema=schema_of(SquareRow))


class ManySquares(RowStage):
    """A million squares."""

    name: ClassVar = "many-squares"
    row: ClassVar = SquareRow
    count: int = Field(ROWS, ge=1)
    shard_rows: int = Field(50_000, ge=1)

    def cells(self, inputs: Inputs) -> pa.Table:
        """Zero-padded decimal ids sort like the numbers."""
        del inputs
        values = pa.array(range(self.count), pa.int64())
        return pa.table({"id": pc.utf8_lpad(values.cast(pa.string()), 12, "0"), "value": values})

    def worker(self, inputs: RunInputs) -> Worker:
        """A squarer."""
        del inputs
        return Squarer()


def loop(folder: Path) -> float:
    """Seconds of a plain loop that reads, squares and writes the same rows in files of the same size."""
    stage = ManySquares()
    source = folder / "source.parquet"
    pq.write_table(stage.cells(None), source, row_group_size=stage.shard_rows)  # type: ignore[arg-type]
    start = time.perf_counter()
    file = pq.ParquetFile(source)
    for number in range(file.num_row_groups):
        pq.write_table(Squarer().run(file.read_row_group(number)), folder / f"{number}.parquet", compression="zstd")
    return time.perf_counter() - start


def run(workers: int = 2) -> list[Result]:
    """The stage's seconds against 3 x loop + 5 s."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        plain = loop(folder)
        resources = Resources(workers=workers, cpus=0.5)
        with RayExecutor(workers=workers) as executor:
            with executor.connected():
                pass
            runner = Runner(Store(folder / "store"), executor, Quiet(), recipe="rows")
            start = time.perf_counter()
            runner.run(ManySquares(resources=resources), Selection())
            seconds = time.perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    detail: dict[str, Any] = {"rows": ROWS, "seconds": round(seconds, 2), "loop_seconds": round(plain, 2)}
    return [
        Result("rows: stage / (3 x pyarrow loop + 5 s)", seconds / (3 * plain + 5), "<= 1", detail),
        Result("rows: driver's peak memory, GB", memory, "<= 1.5", {}),
    ]
