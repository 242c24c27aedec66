"""Peak memory of a run and of its workers over 10,000 clips of 200 kB, beside that over 3,000: it must not grow.

A worker keeps up to 256 MiB of its parents' files: fewer clips than fill that would be compared with a cache that is full.

A stage writes clips, as `render` does, and the stage `judge` shows each pair of them in both orders. The bytes are random
and the juror weighs them, so that what is measured is what Salon itself keeps of files, and not a model or a decoder. Each
size has a process and a Ray of its own.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import psutil
import pyarrow as pa
from pydantic import Field

from actors.executor import RayExecutor
from infra.dag.run import Runner
from infra.dag.selection import Selection
from infra.dag.stage import Inputs, Places, Resources, RowStage, RunInputs, Worker
from infra.identity import group_id, row_id, seed_of
from infra.store.artifacts import Store
from infra.store.tables import Video
from pipelines.algorithms.prompting.opinion import Opinion, decided
from pipelines.models.jurors.juror import Case, Juror, OpenJuror
from pipelines.schemas.samples import Clip
from pipelines.stages.judge import Judge
from pipelines.stages.pair import PairSamples
from pipelines.stages.sources import Pictures
from tests.benchmarks.measure import Result
from tests.benchmarks.quiet import Quiet

FEW, MANY = 3_000, 10_000
BYTES = 200_000
EVERY_S = 0.2


class NoiseWorker:
    """Writes random bytes in the place of a clip."""

    def open(self, device: str, places: Places) -> None:
        """Nothing to load."""

    def run(self, cells: pa.Table) -> list[Clip]:
        """One clip for each cell."""
        return [self._clip(row) for row in cells.to_pylist()]

    def _clip(self, row: dict[str, Any]) -> Clip:
        seed = seed_of(row["id"])
        data = random.Random(seed).randbytes(BYTES)
        shape = {"height": 480, "width": 832, "frames": 81}
        return Clip(**row, generator="noise", seed=seed, fps=16.0, video=Video(data), **shape)


class NoiseClips(RowStage, Pictures):
    """Two clips of 200 kB for each prompt."""

    name: ClassVar = "noise-clips"
    row: ClassVar = Clip
    clips: ClassVar = True
    count: int = Field(FEW, ge=2)

    def cells(self, inputs: Inputs) -> pa.Table:
        """Columns id, prompt_id, text, sample."""
        del inputs
        prompts = [(f"prompt {number // 2}", number % 2) for number in range(self.count)]
        groups = [group_id(text) for text, _ in prompts]
        names = [row_id(group, self.name, text, sample) for group, (text, sample) in zip(groups, prompts, strict=True)]
        texts, samples = zip(*prompts, strict=True)
        return pa.table({"id": names, "prompt_id": groups, "text": texts, "sample": pa.array(samples, pa.int64())})

    def worker(self, inputs: RunInputs) -> Worker:
        """Has nothing to read."""
        del inputs
        return NoiseWorker()


class Weighing:
    """Prefers the clip whose bytes sum to more."""

    def judge(self, cases: Sequence[Case]) -> list[tuple[Opinion, ...] | Exception]:
        """One opinion for each case."""
        leads = [float(sum(bytes(case.first)[:999]) - sum(bytes(case.second or b"")[:999])) for case in cases]
        choices = [decided(lead, tie_within=0.0) for lead in leads]
        return [(Opinion("overall", choice, lead, None, raw=choice),) for lead, choice in zip(leads, choices, strict=True)]


class Weigher(Juror):
    """A juror without a model."""

    name: str = "weigher"

    @property
    def dimensions(self) -> tuple[str, ...]:
        """The overall one."""
        return ("overall",)

    def open(self, device: str, places: Places) -> OpenJuror:
        """Nothing to load."""
        return Weighing()


class Peaks(threading.Thread):
    """The most memory that this process, and that any worker of its Ray, was seen to hold, in MB."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.ended = threading.Event()
        self.driver = self.worker = 0.0

    def run(self) -> None:
        """Looks five times a second."""
        own = psutil.Process()
        while not self.ended.wait(EVERY_S):
            self.driver = max(self.driver, own.memory_info().rss / 1e6)
            for process in own.children(recursive=True):
                try:
                    # Ray's object store is mapped into every worker; what a process holds alone is what it keeps.
                    if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::_Host"):
                        self.worker = max(self.worker, process.memory_full_info().uss / 1e6)
                except psutil.Error:
                    continue


def peaks(count: int) -> dict[str, float]:
    """Peak MB by process, of clips written and judged in this process and its Ray."""
    watch = Peaks()
    with TemporaryDirectory() as name, RayExecutor(workers=2) as executor:
        resources = Resources(workers=2)
        made = NoiseClips(count=count, resources=resources)
        judged = Judge(pairs=PairSamples(pictures=made), pictures=made, jury=(Weigher(),), resources=resources)
        watch.start()
        runner = Runner(Store(Path(name)), executor, Quiet(), recipe="clips")
        runner.run(judged, Selection())
        votes = runner.store.artifact(judged).record.rows
        watch.ended.set()
        watch.join()
    return {"driver": watch.driver, "worker": watch.worker, "votes": votes}


def run(few: int = FEW, many: int = MANY) -> list[Result]:
    """Ratios of peaks: of many clips to few."""
    found = {}
    for count in (few, many):
        command = [sys.executable, "-m", "tests.benchmarks.clips_memory", str(count)]
        told = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ))
        found[count] = json.loads(told.stdout.splitlines()[-1])
    results = []
    for process in ("driver", "worker"):
        small, large = found[few][process], found[many][process]
        detail = {f"{count}_clips_mb": round(found[count][process]) for count in (few, many)}
        detail["votes"] = found[many]["votes"]
        results.append(Result(f"clips: peak memory of a {process}, 10,000 clips / 3,000", large / small, "<= 1.15", detail))
    return results


if __name__ == "__main__":
    print(json.dumps(peaks(int(sys.argv[1]))))
