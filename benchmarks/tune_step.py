"""A tuning step under DeepSpeed ZeRO 1 on one worker against a bare torch step: prints the ratio of the medians.

    python -m benchmarks.tune_step

Both engines take turns on the same model and batches in one process, so that a busy machine slows both.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from actors.engines.training import AdamW, Engine, EngineOptions, build_engine
from actors.trainer import TrainerOptions
from pipelines.algorithms.diffusion.flow import UniformTimes
from pipelines.algorithms.preference.flow_dpo import FlowDPO
from pipelines.models.miniature.generators import WEIGHTS
from pipelines.models.policy import Full, LoRA
from pipelines.stages.preference import DecidedPairs, PreferenceObjective

STEPS, WARM_UP, PAIRS = 20, 4, 256


def step_ratio(adapter: LoRA | Full, *, policy: Path = WEIGHTS / "policy") -> dict[str, float]:
    """Median seconds of a step by engine, and their ratio."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        _random_pairs().save(Path(folder))
        runs = {
            "torch": _ready(policy, Path(folder), adapter, EngineOptions(kind="torch")),
            "deepspeed": _ready(policy, Path(folder), adapter, EngineOptions(kind="deepspeed", zero=1)),
        }
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for step in range(WARM_UP + STEPS):
            for name, (objective, engine) in runs.items():
                started = time.perf_counter()
                draws = TrainerOptions(batch=32).draws(step, size=PAIRS)
                engine.backward(objective.losses(engine.model, draws).losses.mean())
                engine.step(1e-4)
                seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(times[WARM_UP:]) for name, times in seconds.items()}
    return medians | {"ratio": medians["deepspeed"] / medians["torch"]}


def _ready(policy: Path, pairs: Path, adapter: LoRA | Full, options: EngineOptions) -> tuple[PreferenceObjective, Engine]:
    objective = PreferenceObjective(policy, pairs, FlowDPO(beta=200.0), adapter, UniformTimes())
    device = torch.device("cpu")
    model = objective.prepare(device)
    return objective, build_engine(model, options=options, optimizer=AdamW(), clip=1.0, passes=1, device=device)


def _random_pairs() -> DecidedPairs:
    random = np.random.default_rng(0)
    members = [random.integers(0, 256, (PAIRS, 24, 24, 3), dtype=np.uint8) for _ in range(2)]
    names = [str(number) for number in range(PAIRS)]
    return DecidedPairs(*members, ["a red circle"] * PAIRS, names, names)


if __name__ == "__main__":
    for chosen in (LoRA(), Full()):
        found = step_ratio(chosen)
        print(
            f"tune step, {chosen.kind}: torch {1e3 * found['torch']:.0f} ms, "
            f"ZeRO 1 {1e3 * found['deepspeed']:.0f} ms, ratio {found['ratio']:.2f} (at most 1.3)"
        )
