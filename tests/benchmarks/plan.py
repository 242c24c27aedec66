"""`salon plan` over an empty store, and over one with 25,000 shards per stage, all hits; each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from infra.dag.shards import part_name
from infra.dag.stage import RowStage, Stage, topological
from infra.store.artifacts import Store
from infra.store.record import ParentRecord, Record
from infra.store.tables import FileRecord
from jobs.plan import NOTHING_TO_DO, SOMETHING_TO_DO
from tests.benchmarks.measure import Result

SHARDS = 25_000


def fill(store: Store, stage: Stage, *, shards: int) -> None:
    """A finished artifact with that many one-byte shards: `plan` looks at names and sizes, not into them."""
    directory = store.directory(stage)
    directory.mkdir(parents=True)
    count = shards if isinstance(stage, RowStage) else 1
    for number in range(count):
        (directory / part_name(number)).write_bytes(b"x")
    files = [FileRecord(part_name(n), 1, "0" * 64, 1, first=f"{n:024d}") for n in range(count)]
    parents = {name: ParentRecord(p.name, p.key, store.artifact(p).record.digest) for name, p in stage.parents.items()}
    Record(
        stage=stage.name,
        version=stage.version,
        key=stage.key,
        identity=stage.description,
        parents=parents,
        files=files,
        tables={},
        weights=[],
        errors=None,
        rows=count,
        error_rows=0,
        computed_rows=count,
        reused_rows=0,
        seconds=0.0,
        finished="2026-01-01T00:00:00+00:00",
        source={},
        libraries={},
        commit="",
    ).write(directory)


def seconds(root: str, *, status: int) -> float:
    """Of the whole command, which must end with this status."""
    command = [sys.executable, "-m", "jobs.cli", "plan", "miniature", "--root", root]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    taken = time.perf_counter() - start
    assert done.returncode == status, done.stdout + done.stderr
    return taken


def run() -> list[Result]:
    """Seconds of the whole command; over an empty store the best of five."""
    from pipelines.recipes.miniature import miniature

    with TemporaryDirectory() as name:
        empty = min(seconds(str(Path(name) / "none"), status=SOMETHING_TO_DO) for _ in range(5))
        store = Store(Path(name))
        for stage in topological(miniature()):
            fill(store, stage, shards=SHARDS)
        full = seconds(name, status=NOTHING_TO_DO)
    return [
        Result("plan: seconds over an empty store", empty, "<= 1", {}),
        Result(f"plan: seconds with {SHARDS} shards per row-wise stage", full, "<= 3", {}),
    ]
