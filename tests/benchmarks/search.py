"""Search and guidance by a trained reward in the miniature world: strict score, diversity and seconds by k.

The reward model is recipe miniature's, trained on the jurors' labels; the strict score is the exact checker's on held-out
captions, which nothing was trained on. Best of N and step-wise sampling stand beside one another at N = k, where they cost
about as many forwards (N T + N against T + k (T - 1), the reward model being as large as the generator). Diversity is the
mean distance in pixels between the pictures of one caption.
"""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from actors.executor import RayExecutor
from infra.dag.run import Runner
from infra.dag.selection import Selection
from infra.dag.stage import topological
from infra.store.artifacts import Store
from infra.store.files import Folder
from pipelines.algorithms.metrics.diversity import mean_diversity, pixel_distances
from pipelines.miniature.family import MiniatureFamily
from pipelines.miniature.generators import BATCH, shipped
from pipelines.miniature.world.checker import check
from pipelines.miniature.world.draw import SIZE
from pipelines.miniature.world.grammar import captions
from pipelines.models.generators.generator import Request
from pipelines.models.generators.steered import BestOfN, FlowNRG, Steered, Steering, StepwiseSampling
from pipelines.models.rewards.trained import TrainedLatentReward
from pipelines.recipes.miniature import miniature
from pipelines.stages.reward import Reward
from tests.benchmarks.measure import Result
from tests.benchmarks.quiet import Quiet
from tests.support.places import NOWHERE

RECIPE = {"prompts": 300, "evaluation": 100, "zero": "0"}
CAPTIONS, SEEDS = 128, 4
"""Held-out captions, and pictures of each."""
STEERINGS: dict[str, Steering | None] = {
    "plain": None,
    **{f"best of {k}": BestOfN(count=k) for k in (2, 4, 8)},
    **{f"step-wise k = {k}": StepwiseSampling(candidates=k) for k in (1, 2, 4, 8)},
    **{f"Flow-NRG w = {w:g}": FlowNRG(scale=w) for w in (0.1, 1.0, 10.0)},
}


def trained(root: Path) -> TrainedLatentReward:
    """The reward model of the recipe, trained where the store does not hold it, as a folder."""
    stage = next(one for one in topological(miniature(**RECIPE)) if isinstance(one, Reward))
    store = Store(root)
    with RayExecutor(workers=2) as executor:
        Runner(store, executor, Quiet(), recipe="miniature").run(stage, Selection())
    folder = Folder(path=str(store.artifact(stage).weights()))
    return TrainedLatentReward(weights=folder, model=stage.model, backbone=stage.policy)


def measured(reward: TrainedLatentReward, steering: Steering | None, *, count: int, seeds: int) -> dict[str, float]:
    """Strict score in [0, 1], diversity in levels, and seconds per picture."""
    policy = next(one for one in shipped() if one.name == "policy")
    opened = Steered(
        name="arm",
        family=MiniatureFamily(weights=policy.weights),
        steps=policy.steps,
        guidance=policy.guidance,
        height=SIZE,
        width=SIZE,
        dtype="float32",
        batch=BATCH,
        reward=reward if steering is not None and steering.asks else None,
        steering=steering,
    ).open("cpu", NOWHERE)
    asked = captions(count, split="evaluation", seed=0)
    requests = [Request(caption.text, seed) for caption in asked for seed in range(seeds)]
    start = time.perf_counter()
    pictures = np.stack([np.asarray(one)[0] for one in opened.sample(requests)]).reshape(count, seeds, SIZE, SIZE, 3)
    seconds = time.perf_counter() - start
    strict = [check(p, caption.expectation).strict for caption, of in zip(asked, pictures, strict=True) for p in of]
    spread = mean_diversity([pixel_distances(of.astype(np.float64)) for of in pictures])
    return {"strict": float(np.mean(strict)), "diversity": spread, "seconds": seconds / len(requests)}


def run(root: Path | None = None, count: int = CAPTIONS, seeds: int = SEEDS) -> list[Result]:
    """Strict scores; best of 4 and step-wise sampling with 4 candidates are expected above the plain sampler."""
    with TemporaryDirectory() as name:
        reward = trained(root or Path(name))
        found = {label: measured(reward, steering, count=count, seeds=seeds) for label, steering in STEERINGS.items()}
    plain = found["plain"]["strict"]
    bars = {"best of 4": f">= {plain:.3f}", "step-wise k = 4": f">= {plain:.3f}"}
    return [
        Result(f"search: {label}", one["strict"], bars.get(label, ">= 0"), {k: round(v, 4) for k, v in one.items()})
        for label, one in found.items()
    ]
