"""Metrics and pictures as TensorBoard event files."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from actors.training.trackers.base import Sink


class TensorBoard(Sink):
    """Event files. A file's session start at a step hides that step and all later ones of the files before it.

    The files are written directly: the SummaryWriter of tensorboardX queues events for a thread, and a flush does not wait
    for that queue, so a killed training would lose steps that its checkpoint has.
    """

    def __init__(self, folder: Path, resume_step: int) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import SessionLog  # pyright: ignore[reportAttributeAccessIssue]

        again = folder.exists()
        folder.mkdir(exist_ok=True)
        self.writer = EventsWriter(str(folder / "events"), filename_suffix=f".{time.time_ns()}")  # read in this order
        if again:
            self._write(resume_step + 1, session_log=SessionLog(status=SessionLog.START))

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        from tensorboardX.summary import scalar

        for name, value in numbers.items():
            self._write(step, summary=scalar(name, value))

    def pictures(self, step: int, files: Mapping[str, Path]) -> None:
        import numpy as np
        from PIL import Image
        from tensorboardX.summary import image

        for name, path in files.items():
            with Image.open(path) as picture:
                self._write(step, summary=image(name, np.asarray(picture.convert("RGB")), dataformats="HWC"))

    def flush(self) -> None:
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()

    def _write(self, step: int, **content: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]

        self.writer.write_event(Event(wall_time=time.time(), step=step, **content))
