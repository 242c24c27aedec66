"""The render stages over tiny pipelines of diffusers' own classes against a bare diffusers loop with the same batches."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from actors.executor import RayExecutor
from actors.media import encode_mp4, encode_png
from infra.dag.run import Runner
from infra.dag.selection import Selection
from infra.dag.stage import Resources
from infra.store.artifacts import Store
from infra.store.files import Folder
from pipelines.miniature.prompts import Grammar
from pipelines.models.generators.diffusers import Diffusers
from pipelines.stages.prompts import WritePrompts
from pipelines.stages.render import Render, RenderClips
from tests.benchmarks.measure import Result
from tests.benchmarks.quiet import Quiet
from tests.support.places import NOWHERE
from tests.support.tiny import write_tiny

PICTURES, CLIPS = 768, 256
BATCHES = {"sd15": 8, "flux": 8, "wan": 4}
"""Requests per call of the pipeline, by the family of the pipeline."""
STEPS, EDGE, FRAMES = 8, 64, 5
SAMPLES = 4
"""Samples per prompt, as papers draw several: the stage encodes a prompt once, and the bare loop within each call."""


@dataclass(frozen=True)
class Spent:
    """How many rows were made, and in how many seconds of the clock and of processors."""

    rows: int
    wall: float
    processor: float

    @property
    def rate(self) -> float:
        """Rows per second of the clock."""
        return self.rows / self.wall


def generators(folder: Path, families: tuple[str, ...]) -> tuple[Diffusers, ...]:
    """One generator for each family, saved to disk and opened as a published one is."""
    sizes: dict[str, Any] = {"steps": STEPS, "height": EDGE, "width": EDGE, "dtype": "float32"}
    found = []
    for family in families:
        path = folder / family
        weights = Folder(path=str(path if path.is_dir() else write_tiny(family, path)))
        frames = FRAMES if family == "wan" else None
        found.append(Diffusers(name=family, weights=weights, batch=BATCHES[family], frames=frames, **sizes))
    return tuple(found)


def stage(roster: tuple[Diffusers, ...], *, rows: int) -> Render:
    """The roster on as many prompts as make so many rows."""
    prompts = WritePrompts(source=Grammar(train=rows // len(roster) // SAMPLES, evaluation=6))
    kind = RenderClips if roster[0].medium == "video" else Render
    resources = Resources(workers=1, resident=len(roster))
    return kind(prompts=prompts, roster=roster, samples={one.name: SAMPLES for one in roster}, resources=resources)


@contextmanager
def started(folder: Path) -> Iterator[Runner]:
    """A runner whose Ray is there."""
    with RayExecutor(workers=1) as executor:
        yield Runner(Store(folder), executor, Quiet(), recipe="render")


def staged(runner: Runner, roster: tuple[Diffusers, ...], *, rows: int) -> Spent:
    """The stage from the call of `run` to its record, once the actors are there and have imported what they need."""
    runner.run(stage(roster, rows=len(roster) * 4 * SAMPLES), Selection())
    made = stage(roster, rows=rows)
    runner.run(made.prompts, Selection())
    before, start = _actor_seconds(), time.perf_counter()
    runner.run(made, Selection(only=made.node))
    wall = time.perf_counter() - start
    return Spent(runner.store.artifact(made).record.computed_rows, wall, _actor_seconds() - before)


def _actor_seconds() -> float:
    """Processor seconds so far of the actors of this machine's Ray that this process started, and of this process."""
    import psutil

    own = psutil.Process()
    times = [own.cpu_times()]
    for child in own.children(recursive=True):
        try:
            if child.name().startswith("ray::"):
                times.append(child.cpu_times())
        except psutil.Error:
            continue
    return sum(one.user + one.system for one in times)


def bare(roster: tuple[Diffusers, ...], *, rows: int) -> Spent:
    """A loop as a careful user writes it: it loads the pipelines, samples the same batches, encodes with the same codecs.

    Everything has been imported before, as in the stage's actor; nothing is written to disk.
    """
    import torch

    torch.set_num_threads(1)
    from pipelines.miniature.world.grammar import captions

    prompts = captions(rows // len(roster) // SAMPLES, split="train", seed=0)
    texts = [caption.text for caption in prompts for _ in range(SAMPLES)]
    for config in roster:
        _batch(config, _opened(config), texts[: config.batch])
    start, processor = time.perf_counter(), time.process_time()
    count = 0
    for config in roster:
        pipeline = _opened(config)
        for first in range(0, len(texts), config.batch):
            count += len(_batch(config, pipeline, texts[first : first + config.batch]))
    return Spent(count, time.perf_counter() - start, time.process_time() - processor)


def _opened(config: Diffusers) -> Any:
    import torch
    from diffusers import DiffusionPipeline

    pipeline: Any = DiffusionPipeline.from_pretrained(config.weights.folder(NOWHERE), dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _batch(config: Diffusers, pipeline: Any, texts: list[str]) -> list[Any]:
    import torch

    drawn = [torch.Generator().manual_seed(seed) for seed in range(len(texts))]
    options = {"num_inference_steps": STEPS, "height": EDGE, "width": EDGE, "output_type": "pil"}
    if config.frames is not None:
        frames = pipeline(texts, generator=drawn, num_frames=config.frames, **options).frames
        return [encode_mp4(np.stack([np.asarray(one) for one in clip]), fps=config.frame_rate) for clip in frames]
    return [encode_png(np.asarray(picture)) for picture in pipeline(texts, generator=drawn, **options).images]


def run(pictures: int = PICTURES, clips: int = CLIPS) -> list[Result]:
    """Ratios of rows per second, with the processor seconds of both beside them."""
    results = []
    with TemporaryDirectory() as name, started(Path(name) / "store") as runner:
        for what, families, rows in (("pictures", ("sd15", "flux"), pictures), ("clips", ("wan",), clips)):
            roster = generators(Path(name), families)
            loop, through = bare(roster, rows=rows), staged(runner, roster, rows=rows)
            processors = {"bare_processor_s": round(loop.processor, 1), "stage_processor_s": round(through.processor, 1)}
            rates = {"rows": rows, "bare": round(loop.rate, 1), "stage": round(through.rate, 1)}
            ratio = through.rate / loop.rate
            results.append(Result(f"render {what} of diffusers: stage / bare loop", ratio, ">= 0.95", rates | processors))
    return results
