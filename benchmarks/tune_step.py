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

import numpy as np
import torch

from actors.engines.training import AdamW, Engine, EngineOptions, build_engine
from actors.trainer import TrainerOptions
from benchmarks.measure import Result
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


def run() -> list[Result]:
    """The ratio of the medians, for each adapter."""
    found = []
    for adapter in (LoRA(), Full()):
        medians = step_ratio(adapter)
        detail = {f"{name}_ms": round(1e3 * medians[name]) for name in ("torch", "deepspeed")}
        found.append(Result(f"tune: ZeRO 1 step / torch step, {adapter.kind}", medians["ratio"], "<= 1.3", detail))
    return found
