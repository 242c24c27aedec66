"""The render stage against a bare loop over the same pipeline in one process; two workers against one."""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from actors.executor import RayExecutor
from actors.media import encode_png
from infra.dag.run import Runner
from infra.dag.selection import Selection
from infra.dag.stage import Resources
from infra.store.artifacts import Store
from pipelines.miniature.generators import shipped
from pipelines.miniature.prompts import Grammar
from pipelines.models.generators.generator import Request
from pipelines.stages.prompts import WritePrompts
from pipelines.stages.render import Render
from tests.benchmarks.measure import Result
from tests.benchmarks.quiet import Quiet
from tests.support.places import NOWHERE

PICTURES = 4000
GENERATORS = ("policy", "late")


def stage(workers: int, *, pictures: int) -> Render:
    """Two generators of one size: `render` asks for at least two."""
    roster = tuple(generator for generator in shipped() if generator.name in GENERATORS)
    prompts = WritePrompts(source=Grammar(train=pictures // len(roster), evaluation=6))
    return Render(prompts=prompts, roster=roster, resources=Resources(workers=workers, resident=2))


def staged(workers: int, *, pictures: int) -> float:
    """Pictures a second of the stage once the actors are there, its reading and writing included."""
    with TemporaryDirectory() as name, RayExecutor(workers=workers) as executor:
        runner = Runner(Store(Path(name)), executor, Quiet(), recipe="render")
        # The first run pays for Ray, the processes and their imports: what is measured is a stage in a long night.
        runner.run(stage(workers, pictures=256 * workers), Selection())
        made = stage(workers, pictures=pictures)
        runner.run(made.prompts, Selection())
        start = time.perf_counter()
        runner.run(made, Selection(only="render"))
        record = runner.store.artifact(made).record
        return record.computed_rows / (time.perf_counter() - start)


def bare(*, pictures: int) -> float:
    """Pictures a second of a loop over the same pipelines in this process, encoded as the stage encodes them."""
    import torch

    torch.set_num_threads(1)
    made = stage(1, pictures=pictures)
    from pipelines.miniature.world.grammar import captions

    texts = [caption.text for caption in captions(made.prompts.source.train, split="train", seed=0)]
    loaded = [generator.open("cpu", NOWHERE) for generator in made.roster]
    loaded[0].sample([Request(text, seed) for seed, text in enumerate(texts[:128])])
    start = time.perf_counter()
    count = 0
    for generator in loaded:
        for first in range(0, len(texts), made.shard_rows):
            part = texts[first : first + made.shard_rows]
            requests = [Request(text, seed) for seed, text in enumerate(part, start=first)]
            count += len([encode_png(pixels[0]) for pixels in generator.sample(requests)])
    return count / (time.perf_counter() - start)


def bare_twice(*, pictures: int) -> float:
    """Pictures a second of two bare loops in processes of their own at once: what the machine's two cores can give."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as processes:
        rates = [processes.submit(bare, pictures=pictures) for _ in range(2)]
        return sum(rate.result() for rate in rates)


def run(pictures: int = PICTURES) -> list[Result]:
    """Ratios of pictures per second."""
    loop = bare(pictures=pictures)
    twice = bare_twice(pictures=pictures)
    one, two = staged(1, pictures=pictures), staged(2, pictures=pictures)
    detail = {"pictures": pictures, "bare": round(loop, 1), "one": round(one, 1), "two": round(two, 1)}
    cores = {"two_bare_loops": round(twice, 1), "two_bare_loops_to_one": round(twice / loop, 3)}
    return [
        Result("render: one worker / bare loop", one / loop, ">= 0.95", detail),
        Result("render: two workers / one", two / one, ">= 1.8", cores),
    ]
