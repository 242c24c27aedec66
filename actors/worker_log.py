"""A worker's own log: what its process prints and logs, each line with its time."""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path


def log_path(folder: Path) -> Path:
    """The file of this process: node and process number."""
    return folder / f"{socket.gethostname()}-{os.getpid()}.log"


class WorkerLog:
    """Takes over standard output and error of this process, those of libraries in C too, and writes them to one file.

    A pipe takes the place of both file descriptors; a thread reads it and writes whole lines, the time (UTC) before each.
    When a run ends and another begins in the same process, `follow` moves the log to the other run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.follow(folder)
        reading, writing = os.pipe()
        for descriptor in (1, 2):
            os.dup2(writing, descriptor)
        os.close(writing)
        # Block-buffered streams would hold lines back until the process ends, or lose them where it is killed.
        sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        logging.basicConfig(
            stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", force=True
        )
        logging.captureWarnings(True)
        threading.Thread(target=self._copy, args=(reading,), name="worker log", daemon=True).start()

    def follow(self, folder: Path) -> None:
        """Writes to the file of this process in `folder` from now on."""
        folder.mkdir(parents=True, exist_ok=True)
        self.path = log_path(folder)
        self.line("worker started")

    def line(self, text: str) -> None:
        """One line with the time."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}  {text}\n")

    def _copy(self, reading: int) -> None:
        with os.fdopen(reading, encoding="utf-8", errors="replace") as lines:
            for text in lines:
                self.line(text.rstrip("\n"))
