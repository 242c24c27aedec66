"""The whole recipe from nothing and from the cache, with the peak memory of every process."""

from __future__ import annotations

import subprocess
import sys
import time
from tempfile import TemporaryDirectory

import psutil

from tests.benchmarks.measure import Result


def watched(command: list[str]) -> tuple[float, float]:
    """Seconds of a command, and the largest resident memory of any one of its processes, GB (shared pages included)."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        try:
            family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            peak = max([peak, *(member.memory_info().rss for member in family)])
        except psutil.Error:
            pass
        time.sleep(0.5)
    assert process.returncode == 0, command
    return time.perf_counter() - start, peak / 1e9


def run() -> list[Result]:
    """Seconds and GB."""
    with TemporaryDirectory() as name:
        command = [sys.executable, "-m", "jobs.cli", "run", "miniature", "--root", name]
        seconds, memory = watched(command)
        cached, _ = watched(command)
    return [
        Result("miniature: seconds from nothing", seconds, "<= 150", {}),
        Result("miniature: seconds when all is cached", cached, "<= 2", {}),
        Result("miniature: largest process, GB", memory, "<= 1.2", {}),
    ]
