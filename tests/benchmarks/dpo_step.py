"""One DPO step on the miniature policy: Salon's, Salon's with cached reference errors, and the plain pseudo-code.

On a CPU the four forward passes of the plain reading are as much arithmetic as Salon's two of twice the size, so what
batching and encoding once gain is small (`eager`); Salon's step is therefore measured as `tune` runs it with `compile`,
the plain one as it is written. Compiling (half a minute a process, kept on disk by torch) is part of the warm-up.
Times: all variants take turns in one process on one thread, and a ratio is the median over the turns, so that a busy
machine slows all of them. Memory: a process each, for the allocator does not give back what another variant used.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from actors.training.engines.build import build_engine
from actors.training.engines.engine import AdamW, EngineOptions
from actors.training.options import TrainerOptions
from pipelines.models.adapter import Full, LoRA
from tests.benchmarks.measure import Result
from tests.benchmarks.pairs import BETA, Pairs, open_pairs, write_pairs
from tests.benchmarks.plain_dpo import PlainDPO

PAIRS, BATCH, STEPS, WARM_UP = 256, 16, 40, 5
VARIANTS = ("plain", "eager", "salon", "cached")
BARS = (("plain", "salon", ">= 1.5"), ("salon", "cached", ">= 1.3"))
ADAPTERS: dict[str, LoRA | Full] = {"lora": LoRA(), "full": Full()}

Step = Callable[[int], float]
"""A step of a number; its loss."""


def build(variant: str, pairs: Pairs, adapter: LoRA | Full, *, batch: int = BATCH) -> Step:
    """A variant's training, ready for its step 0. All variants get the same pairs in the same order."""
    batches = TrainerOptions(batch=batch).batches(size=len(pairs.texts))
    if variant == "plain":
        plain = PlainDPO(pairs, adapter, beta=BETA)

        def plain_step(number: int) -> float:
            index = [draw.index for draw in batches.draws(number)]
            return plain.step(index, generator=torch.Generator().manual_seed(number))

        return plain_step
    device = torch.device("cpu")
    objective = pairs.objective(adapter, cached=variant == "cached", compiled=variant != "eager")
    model = objective.prepare(device)
    options = EngineOptions(kind="torch")
    engine = build_engine(model, options=options, optimizer=AdamW(), clip=1.0, passes=1, device=device)

    def step(number: int) -> float:
        loss = objective.losses(engine.model, batches.draws(number), means={}).losses.mean()
        engine.backward(loss)
        engine.step(1e-4)
        return loss.item()

    return step


def seconds(pairs: Pairs, adapter: LoRA | Full, *, batch: int = BATCH, steps: int = STEPS) -> dict[str, list[float]]:
    """Seconds of every step after the warm-up, the variants by turns."""
    runs = {variant: build(variant, pairs, adapter, batch=batch) for variant in VARIANTS}
    found: dict[str, list[float]] = {variant: [] for variant in runs}
    for number in range(WARM_UP + steps):
        for variant, step in runs.items():
            started = time.perf_counter()
            step(number)
            found[variant].append(time.perf_counter() - started)
    return {variant: times[WARM_UP:] for variant, times in found.items()}


def ratio(slow: list[float], fast: list[float]) -> float:
    """How many times faster, the median over the turns."""
    return statistics.median(one / other for one, other in zip(slow, fast, strict=True))


def peak(root: Path, variant: str, adapter: str) -> dict[str, float]:
    """MiB of a process that trains a few steps: `peak`, and `own`, which leaves out what the imports take."""
    command = [sys.executable, "-m", "tests.benchmarks.dpo_step", str(root), variant, adapter]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    before, after = (float(value) for value in done.stdout.split()[-2:])
    return {"peak": after, "own": after - before}


def most_held() -> float:
    """MiB, the most this process ever held: of the process's own memory, while `ru_maxrss` begins at the parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def main(root: str, variant: str, adapter: str) -> None:
    """What `peak` starts: prints the memory before and after."""
    torch.set_num_threads(1)
    before = most_held()
    step = build(variant, open_pairs(Path(root)), ADAPTERS[adapter])
    for number in range(WARM_UP):
        step(number)
    print(before, most_held())


def run(steps: int = STEPS) -> list[Result]:
    """Both ratios for each adapter, with milliseconds and MiB."""
    torch.set_num_threads(1)
    found = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "pairs"
        pairs = write_pairs(root, count=PAIRS)
        for kind, adapter in ADAPTERS.items():
            times = seconds(pairs, adapter, steps=steps)
            memory = {variant: peak(root, variant, kind) for variant in VARIANTS}
            for slow, fast, bar in BARS:
                shown = ("plain", "eager", "salon") if slow == "plain" else (slow, fast)
                detail: dict[str, Any] = {f"{v}_ms": round(1e3 * statistics.median(times[v]), 1) for v in shown}
                detail |= {f"{v}_MiB": f"{memory[v]['peak']:.0f} (own {memory[v]['own']:.0f})" for v in shown}
                if slow == "plain":
                    detail["plain/eager"] = round(ratio(times["plain"], times["eager"]), 2)
                title = f"dpo step: {slow} / {fast}, {kind}"
                found.append(Result(title, ratio(times[slow], times[fast]), bar, detail))
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
