"""A tuning step under DeepSpeed ZeRO 1 on one worker against a bare torch step: the ratio of the medians.

Both engines take turns on the same model and batches in one process, so that a busy machine slows both.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import statistics
import tempfile
import time
from pathlib import Path

import torch

from actors.training.engines.build import build_engine
from actors.training.engines.engine import AdamW, Engine, EngineOptions
from actors.training.options import TrainerOptions
from pipelines.models.adapter import Full, LoRA
from pipelines.training.preference import PreferenceObjective
from tests.benchmarks.measure import Result
from tests.benchmarks.pairs import Pairs, write_pairs

STEPS, WARM_UP, PAIRS, BATCH = 20, 4, 256, 32
ENGINES = {"torch": EngineOptions(kind="torch"), "deepspeed": EngineOptions(kind="deepspeed", zero=1)}


def step_ratio(pairs: Pairs, adapter: LoRA | Full) -> dict[str, float]:
    """Median seconds of a step by engine, and the median ratio of the turns."""
    runs = {name: _ready(pairs, adapter, options) for name, options in ENGINES.items()}
    batches = TrainerOptions(batch=BATCH).batches(size=PAIRS)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for step in range(WARM_UP + STEPS):
        for name, (objective, engine) in runs.items():
            started = time.perf_counter()
            engine.backward(objective.losses(engine.model, batches.draws(step), means={}).losses.mean())
            engine.step(1e-4)
            seconds[name].append(time.perf_counter() - started)
    kept = {name: times[WARM_UP:] for name, times in seconds.items()}
    ratio = statistics.median(one / other for one, other in zip(kept["deepspeed"], kept["torch"], strict=True))
    return {name: statistics.median(times) for name, times in kept.items()} | {"ratio": ratio}


def _ready(pairs: Pairs, adapter: LoRA | Full, options: EngineOptions) -> tuple[PreferenceObjective, Engine]:
    objective = pairs.objective(adapter)
    device = torch.device("cpu")
    model = objective.prepare(device)
    return objective, build_engine(model, options=options, optimizer=AdamW(), clip=1.0, passes=1, device=device)


def run() -> list[Result]:
    """The ratio for each adapter."""
    torch.set_num_threads(1)
    found = []
    with tempfile.TemporaryDirectory() as name:
        pairs = write_pairs(Path(name) / "pairs", count=PAIRS)
        for adapter in (LoRA(), Full()):
            medians = step_ratio(pairs, adapter)
            detail = {f"{engine}_ms": round(1e3 * medians[engine]) for engine in ENGINES}
            found.append(Result(f"tune: ZeRO 1 step / torch step, {adapter.kind}", medians["ratio"], "<= 1.1", detail))
    return found
