"""How long a stage will take, and how much disk: reckoned from what the store has seen of the same stage.

Every record of a row-wise stage says how many workers computed how many rows in which time. The newest one with as many
GPUs per worker gives seconds of a worker, GPU-hours and bytes per row; `plan` multiplies them by the rows to do. Where the
store has no record, a stage may know published rates or reckon (`Stage.gpu_time`), and what is foretold says so.
"""

from __future__ import annotations

from infra.dag.foretold import Foretold
from infra.dag.stage import Inputs, RowStage, Stage, Unforeseeable
from infra.store.artifacts import Store
from infra.store.record import NewerRecord, Record, read_record

NEWEST = 5
"""Records that are looked at, newest first, until one is of the same kind of worker."""


def foretell(stage: RowStage, store: Store, rows: int) -> Foretold | None:
    """Time, GPU-hours and disk of so many rows; None where the store has no finished artifact to go by."""
    for directory in store.siblings(stage)[: -NEWEST - 1 : -1]:
        try:
            record = read_record(directory)
        except NewerRecord:
            continue
        if record is not None and _tells(record, stage):
            each = record.seconds * record.metrics["workers"] / record.computed_rows  # seconds of one worker
            size = sum(file.bytes for _, file in record.every_file())
            return Foretold(
                seconds=each * rows / stage.resources.workers,
                gpu_hours=each * rows * stage.resources.gpus / 3600,
                bytes=round(size / max(1, record.rows) * rows),
            )
    return None


def assume(stage: Stage, inputs: Inputs, rows: int | None) -> Foretold | None:
    """Time and GPU-hours by what the stage itself knows; None where that is nothing, or where it takes no GPU."""
    gpus = stage.resources.workers * stage.resources.gpus
    if not gpus or rows == 0:
        return None
    try:
        found = stage.gpu_time(inputs, rows)
    except Unforeseeable:
        return None
    if found is None:
        return None
    hours = found.seconds / 3600
    return Foretold(found.seconds / gpus, gpu_hours=hours, bytes=None, basis=found.basis, complete=found.complete)


def _tells(record: Record, stage: RowStage) -> bool:
    """Whether it computed rows with the same share of a GPU."""
    same = record.metrics.get("gpus") == stage.resources.gpus
    return bool(record.computed_rows and record.metrics.get("workers") and same)
