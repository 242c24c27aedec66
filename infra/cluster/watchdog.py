"""A small process that ends what a local Ray leaves behind when its driver is killed.

The kernel ends the raylet and the GCS with the driver (Ray asks it to), and workers end by themselves within seconds. The
raylet's two agents do not: they notice at once, but then wait for minutes for a GCS that is gone to report it to. The
driver names every process of its Ray to the watchdog through a pipe. When the pipe closes without a farewell, the driver is
dead, and the watchdog ends those processes that are still there `GRACE_S` later.

Linux only: it reads /proc. Run as a script it imports nothing but the standard library.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FAREWELL = "done"
GRACE_S = 5.0
PROC = Path("/proc")


def started(pid: int) -> tuple[int, str] | None:
    """(parent's pid, start time in clock ticks since boot) of a process that runs, None for one that does not."""
    try:
        words = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    return None if words[0] in "ZX" else (int(words[1]), words[19])


def descendants(pid: int) -> list[tuple[int, str]]:
    """(pid, start time) of every process below `pid`."""
    found = {int(path.name): started(int(path.name)) for path in PROC.iterdir() if path.name.isdigit()}
    below, family = {pid}, []
    while below:
        mine = [(one, state[1]) for one, state in found.items() if state is not None and state[0] in below]
        family += mine
        below = {one for one, _ in mine}
    return family


@contextmanager
def watched() -> Iterator[None]:
    """Every process below this one that is there now ends soon after this one does, even if it is killed."""
    if not (PROC / "self" / "stat").exists():
        yield
        return
    family = descendants(os.getpid())
    dog = subprocess.Popen(
        [sys.executable, "-I", "-S", __file__],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True, start_new_session=True,
    )  # fmt: skip
    assert dog.stdin is not None
    with suppress(OSError):  # a watchdog that has ended is missed only when this process is killed
        dog.stdin.write("".join(f"{pid} {start}\n" for pid, start in family))
        dog.stdin.flush()
    try:
        yield
    finally:
        with suppress(OSError):
            dog.stdin.write(f"{FAREWELL}\n")
            dog.stdin.close()
        dog.wait()


def watch(lines: Iterable[str]) -> None:
    """Reads names of processes until the pipe closes; ends them where it closed without a farewell."""
    family: list[tuple[int, str]] = []
    for line in lines:
        if line.strip() == FAREWELL:
            return
        pid, start = line.split()
        family.append((int(pid), start))
    deadline = time.monotonic() + GRACE_S
    while family and time.monotonic() < deadline:
        time.sleep(0.2)
        family = [(pid, start) for pid, start in family if (started(pid) or ("", ""))[1] == start]
    for pid, _ in family:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    watch(sys.stdin)
