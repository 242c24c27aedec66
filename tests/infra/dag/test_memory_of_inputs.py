"""What a stage holds in memory of its parents does not grow with their rows."""

import os
import threading
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from infra.dag.compute import WORKER_BUDGET, StoreInputs
from infra.dag.fingerprint import hash_rows
from infra.dag.run import Runner
from infra.dag.selection import Selection
from infra.dag.stage import TableStage
from infra.store.artifacts import Store
from infra.store.tables import schema_of
from tests.benchmarks.quiet import Quiet
from tests.support.inline import InlineExecutor

FILES, SIZE = 12, 4_000_000


@dataclass(frozen=True)
class Blob:
    """Stands for a clip."""

    id: str
    data: bytes


class WriteBlobs(TableStage):
    """Files of one incompressible row each."""

    name: ClassVar = "blobs"
    row: ClassVar = Blob

    def run(self, context):
        for number in range(FILES):
            yield pa.table({"id": [f"{number:02d}"], "data": [os.urandom(SIZE)]}, schema=schema_of(Blob))


def test_rows_of_imported_media_are_hashed_file_by_file(tmp_path):
    runner = Runner(Store(tmp_path), InlineExecutor(), Quiet(), recipe="blobs")
    stage = WriteBlobs()
    runner.run(stage, Selection())
    inputs, before, over, held = StoreInputs(runner.store), pa.total_allocated_bytes(), threading.Event(), [0]

    def watch():
        while not over.wait(0.0005):
            held.append(pa.total_allocated_bytes() - before)

    watching = threading.Thread(target=watch)
    watching.start()
    found = inputs.hashes(stage)
    over.set()
    watching.join()
    assert found is not None and found["id"].to_pylist() == [f"{number:02d}" for number in range(FILES)]
    assert len(held) > 1 and max(held) < FILES * SIZE / 2
    assert found["hash"].to_pylist() == hash_rows(inputs.table(stage)).to_pylist()


def test_a_worker_keeps_less_of_its_parents_than_ten_thousand_clips():
    assert WORKER_BUDGET < 10_000 * 200_000 / 4
