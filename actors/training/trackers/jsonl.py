"""Metrics as JSON lines, one object for each step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from actors.training.trackers.base import STEP, Sink


class JsonLines(Sink):
    """One line `{"step": 1, "loss": …}` per step; pictures are a line with their paths.

    resume_step: lines of later steps, which an earlier process wrote and this one makes again, are cut off.
    """

    def __init__(self, path: Path, resume_step: int) -> None:
        kept = [line for line in _lines(path) if json.loads(line)[STEP] <= resume_step]
        path.write_text("".join(kept))
        self.file = path.open("a")

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self._write({STEP: step, **numbers})

    def pictures(self, step: int, files: Mapping[str, Path]) -> None:
        self._write({STEP: step, "pictures": {name: str(path) for name, path in files.items()}})

    def flush(self) -> None:
        self.file.flush()

    def close(self) -> None:
        self.file.close()

    def _write(self, row: dict[str, Any]) -> None:
        self.file.write(json.dumps(row) + "\n")


def _lines(path: Path) -> list[str]:
    """Whole lines: a process that was killed may have left half a one."""
    if not path.exists():
        return []
    return [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
