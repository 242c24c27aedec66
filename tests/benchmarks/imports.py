"""Importing every format of preference data: pairs per second, and how memory grows with the number of rows."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil

from pipelines.exchange.formats import FORMATS
from pipelines.exchange.pairs import Format, Layout, PairWithMedia
from tests.benchmarks.measure import Result

FEW, MANY = 10_000, 100_000
DIFFERENT = 100  # pictures
BROKEN = 1000  # every so many pairs, a picture that is cut off
CONSTANT, READERS, FILES = 0.1, 0.05, 0.1
"""GB: what a hundred thousand rows may hold as columns (ids, prompts, places) in the command and in a reader over what ten
thousand do; and what the command may hold for half a million files, their names and hashes.
"""
CHOICES = ("a", "b", "tie")


def pictures(*, clips: bool) -> list[bytes]:
    """Different pictures of 32 x 32 pixels, or clips of three frames."""
    random = np.random.default_rng(0)
    return [_clip(random) if clips else _jpeg(random) for _ in range(DIFFERENT)]


def _jpeg(random: np.random.Generator) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(out, format="JPEG")
    return out.getvalue()


def _clip(random: np.random.Generator) -> bytes:
    import av

    out = io.BytesIO()
    with av.open(out, mode="w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for _ in range(3):
            pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return out.getvalue()


def some_pairs(format: Format, count: int) -> Iterator[PairWithMedia]:
    """`count` pairs, one in a thousand with a broken picture (clips are whole), and ties where they can be said."""
    clips = "image" not in format.holds
    drawn = pictures(clips=clips)
    choices = CHOICES if format.ties else CHOICES[:2]
    for n in range(count):
        one, other = drawn[n % DIFFERENT], drawn[(n * 7 + 1) % DIFFERENT]
        yield PairWithMedia(
            id=f"pair{n:08d}",
            prompt=f"a picture of thing number {n // 4}, in some detail",
            choice=choices[n % len(choices)],
            agreement=1.0,
            score=0.0,
            generator_a="one",
            generator_b="other",
            a=one[: len(one) // 2] + str(n).encode() if n % BROKEN == 7 and not clips else one,
            b=other,
            margins={"VQ": (1.0, -1.0, 0.0)[n % len(choices)]},
        )


class Watch(threading.Thread):
    """The most memory of the command's own process, and of any that reads pictures, GB."""

    def __init__(self, process: psutil.Process) -> None:
        super().__init__(daemon=True)
        self.process, self.driver, self.worker = process, 0.0, 0.0

    def run(self) -> None:
        while True:
            try:
                self.driver = max(self.driver, self.process.memory_info().rss / 2**30)
                for child in self.process.children(recursive=True):
                    if child.name().startswith("ray::"):
                        self.worker = max(self.worker, child.memory_full_info().uss / 2**30)
            except psutil.NoSuchProcess:
                if not self.process.is_running():
                    return
            time.sleep(0.2)


def measured(format: Format, folder: Path, count: int) -> tuple[float, Watch]:
    """Seconds of one import in a process of its own, and its memory; raises where it does not say what is true."""
    source = folder / f"{format.name}-{count}"
    source.mkdir()
    medium = "image" if "image" in format.holds else "video"
    format.write(some_pairs(format, count), source, layout=Layout(medium, ("VQ",)))
    command = [sys.executable, "-m", "jobs.import_", format.name, str(source), "--root", str(folder / f"store-{count}")]
    began = time.perf_counter()
    started = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)
    watch = Watch(psutil.Process(started.pid))
    watch.start()
    out, _ = started.communicate()
    seconds = time.perf_counter() - began
    broken = count // BROKEN if medium == "image" else 0
    if started.returncode != (1 if broken else 0) or f"{count - broken} of {count} pairs imported" not in out:
        raise RuntimeError(f"{format.name}: status {started.returncode}: {out}")
    return seconds, watch


def compared(format: Format, *, few: int, many: int) -> list[Result]:
    """Rate and memory at many rows beside few."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        few_seconds, small = measured(format, folder, few)
        seconds, large = measured(format, folder, many)
    constant = CONSTANT + (FILES if format.name == "pair_folder" else 0)  # five files per pair
    detail = {"few_GB": round(small.driver, 3), "many_GB": round(large.driver, 3), "constant_GB": constant}
    readers = {"few_GB": round(small.worker, 3), "many_GB": round(large.worker, 3), "constant_GB": READERS}
    rate = {"pairs_per_s": round(many / seconds), "seconds": round(seconds, 1), "few_seconds": round(few_seconds, 1)}
    title, bound = f"import {format.name}", "<= 1"
    return [
        Result(
            f"{title}: memory / (1.3 x at {few} + constant)", large.driver / (1.3 * small.driver + constant), bound, detail
        ),
        Result(f"{title}: a reader's, the same", large.worker / (1.3 * small.worker + READERS), bound, readers),
        Result(f"{title}: seconds per pair / at {few}", seconds / many / (few_seconds / few), "<= 1.3", rate),
    ]


def run(names: Sequence[str] = tuple(FORMATS), *, few: int = FEW, many: int = MANY) -> list[Result]:
    """Every format, one after the other."""
    return [result for name in names for result in compared(FORMATS[name], few=few, many=many)]
