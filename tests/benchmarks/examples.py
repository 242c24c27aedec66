"""A million examples in the memory of one rank, and the seconds until it may train on them, in a process of its own."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc

from actors.training.draws import Batches
from infra.store.artifacts import RowReader
from infra.store.tables import FileRecord, schema_of
from pipelines.schemas.samples import Encoded
from pipelines.schemas.training import Example
from pipelines.training.data import COLUMNS, LATENTS, TrainingData
from tests.benchmarks.measure import Result

EXAMPLES = 1_000_000
PROMPTS = 100_000
BATCH = 64


class Nothing(RowReader):
    """Latents that are not read: they lie on a disk, and how many of them are kept is another budget's matter."""

    def take(self, ids: Sequence[str], columns: Sequence[str]) -> pa.Table:
        """None."""
        raise NotImplementedError("this benchmark reads no latents")


def data_in(folder: Path) -> TrainingData:
    """Examples without latents: more than fit into memory."""
    huge = FileRecord("part-00000.parquet", 2**50, "0" * 64, 1, first="")
    return TrainingData(folder / "examples.arrow", Nothing(folder, (huge,), Encoded), "empty")


def examples(count: int) -> pa.Table:
    """Examples of two pictures of their own each, in three shapes, both orientations encoded, with every number there."""
    numbers = np.arange(count)

    def names(kind: str, values: np.ndarray) -> pa.Array:
        return pc.binary_join_element_wise(kind, pc.utf8_lpad(pa.array(values).cast(pa.string()), 22, "0"), "")

    columns: dict[str, pa.Array] = {"id": names("id", numbers), "prompt": names("tx", numbers % PROMPTS)}
    for turn, side in enumerate(LATENTS):
        columns[side] = names("en", (4 * numbers + turn) * 7919 % (4 * count))
    side = pa.array(512 + 64 * (numbers % 3))
    columns |= {"frames": pa.array(np.ones(count)), "height": side, "width": side, "tie": pa.array(numbers % 9 == 0)}
    random = pa.array(np.random.default_rng(0).random(count))
    schema = schema_of(Example)
    chosen = [pa.field(name, schema.field(name).type) for name in COLUMNS]
    return pa.table([columns.get(field.name, random).cast(field.type) for field in chosen], schema=pa.schema(chosen))


def opened(folder: Path) -> dict[str, float]:
    """MB that the examples add to this process, at most and in the end, and the seconds to the first step's examples."""
    import torch

    torch.zeros(1)
    process = psutil.Process()
    before, started = process.memory_info().rss, time.process_time()
    peak, ended = [before], threading.Event()

    def watch() -> None:
        while not ended.wait(0.01):
            peak[0] = max(peak[0], process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    data = data_in(folder).open()
    batches = Batches(0, batch=BATCH, size=len(data), groups=data.groups)
    drawn = batches.draws(0)
    names = [data.name_of(draw.index) for draw in drawn]
    seconds = time.process_time() - started
    ended.set()
    watcher.join()
    held = process.memory_info().rss
    assert len(set(names)) == BATCH
    return {
        "seconds": seconds,
        "held": (held - before) / 1e6,
        "peak": (peak[0] - before) / 1e6,
        "process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }


def run(count: int = EXAMPLES) -> list[Result]:
    """MB and seconds of one core, of a fresh process that has torch already."""
    with TemporaryDirectory() as folder:
        data_in(Path(folder)).write(examples(count))
        command = [sys.executable, "-m", "tests.benchmarks.examples", folder]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    detail = {name: round(found[name], 1) for name in ("peak", "process")}
    return [
        Result(f"examples: MB of a rank for {count:,}", found["held"], "<= 300", detail),
        Result(f"examples: seconds before training on {count:,}", found["seconds"], "<= 10", {}),
    ]


if __name__ == "__main__":
    print(json.dumps(opened(Path(sys.argv[1]))))
