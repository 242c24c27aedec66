"""Two workers on two cores against one: pairs per second, and the same losses.

Through Ray Train as a stage launches it. Only steps are timed, by the workers themselves and after a warm-up: starting
processes is not what a night of training consists of. One and two workers take turns; a ratio is the median of the turns.
It needs two free cores: `by_cpu_time` is the same ratio if no worker ever had to wait for a core or for the other worker.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from actors.training.engines.engine import EngineOptions
from actors.training.launch import Session, fit
from actors.training.options import TrainerOptions
from actors.training.trainer import Training, train
from infra.cluster.connection import connected
from infra.dag.stage import Resources
from tests.benchmarks.measure import Result

PAIRS, BATCH, STEPS, WARM_UP, TURNS = 256, 64, 24, 4, 3


def timed(training: Training, session: Session) -> None:
    """`train`; rank 0 writes down when each step ended, and its metrics."""
    rows: list[dict[str, Any]] = []

    def report(metrics: dict[str, Any]) -> None:
        rows.append(metrics | {"ended": time.perf_counter(), "used": time.process_time()})

    session.report = report
    train(training, session)
    if session.rank == 0:
        (session.folder / "timed.json").write_text(json.dumps(rows))


@dataclass(frozen=True)
class Measured:
    """What a run was like after its warm-up."""

    rate: float  # pairs per second, by the median step
    rate_by_cpu_time: float
    losses: list[float]  # of every step


def measured(training: Training, *, workers: int, storage: Path, name: str) -> Measured:
    """A run of so many workers."""
    resources = Resources(workers=workers)
    fit(
        timed,
        training,
        workers=workers,
        storage=storage,
        name=name,
        resources=resources,
        max_failures=0,
        on_report=None,
    )
    rows = json.loads((storage / name / "timed.json").read_text())

    def rate(column: str) -> float:
        ended = [row[column] for row in rows][WARM_UP:]
        return training.options.batch / statistics.median(after - before for before, after in pairwise(ended))

    return Measured(rate("ended"), rate("used"), [row["loss"] for row in rows])


def run(turns: int = TURNS, *, steps: int = STEPS) -> list[Result]:
    """The ratio of pairs per second, and the largest difference between the losses of one worker and of two."""
    from pipelines.models.adapter import LoRA
    from tests.benchmarks.pairs import write_pairs

    with tempfile.TemporaryDirectory() as name, connected(workers=2):
        pairs = write_pairs(Path(name) / "pairs", count=PAIRS)
        options = TrainerOptions(
            steps=steps, batch=BATCH, checkpoint_every=steps, learning_rate=1e-3, engine=EngineOptions(kind="torch")
        )
        training = Training(pairs.objective(LoRA()), options)
        found: dict[int, list[Measured]] = {1: [], 2: []}
        for turn in range(turns):
            for workers, runs in found.items():
                runs.append(measured(training, workers=workers, storage=Path(name), name=f"{workers}-{turn}"))
    both = list(zip(found[1], found[2], strict=True))
    ratio = statistics.median(two.rate / one.rate for one, two in both)
    by_cpu = statistics.median(two.rate_by_cpu_time / one.rate_by_cpu_time for one, two in both)
    apart = max(abs(a - b) for one, two in both for a, b in zip(one.losses, two.losses, strict=True))
    detail: dict[str, Any] = {f"pairs_per_s_{n}": [round(run.rate) for run in runs] for n, runs in found.items()}
    return [
        Result("two workers: pairs per second / one worker's", ratio, ">= 1.6", detail | {"by_cpu_time": round(by_cpu, 2)}),
        Result("two workers: largest difference of a loss", apart, "<= 1e-4", {"is": f"{apart:.1e}", "steps": steps}),
    ]
