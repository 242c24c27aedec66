"""Where a training's curves and pictures are shown: TensorBoard and JSON lines always, W&B and MLflow where asked.

A run that was killed is continued from its last checkpoint and makes the steps after it again, with the same numbers. They
take the place of the earlier ones: TensorBoard is told to purge, lines are cut off, and the two services, whose histories
only grow, are not told twice.
"""

from __future__ import annotations

import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import Field

from infra.config import Config, ConfigError

LINES, EVENTS = "metrics.jsonl", "tensorboard"
RUN_TAG = "salon.run"
STEP = "step"


class WandB(Config):
    """Weights & Biases; the key comes from its own environment variables."""

    project: str = Field(min_length=1)
    entity: str | None = None
    """User or team; None for the account's default."""
    offline: bool = False
    """Writes next to the run, to be sent by `wandb sync`."""


class MLflow(Config):
    """An MLflow server or folder."""

    uri: str = Field(min_length=1)
    """For instance `http://tracking:5000` or `sqlite:///mlflow.db`."""
    experiment: str | None = None
    """None for the server's default."""


class Trackers(Config):
    """What is told of a training beside TensorBoard and JSON lines, which always are."""

    wandb: WandB | None = None
    mlflow: MLflow | None = None

    def check(self) -> None:
        """Raises ConfigError where a package is missing; call it before anything is computed."""
        for package, wanted in (("wandb", self.wandb), ("mlflow", self.mlflow)):
            if wanted is not None and find_spec(package) is None:
                raise ConfigError(f"tracker {package} is not installed; pip install 'salon[{package}]', or leave it out")


class Tracker:
    """All of a run's trackers."""

    def __init__(self, sinks: list[Sink]) -> None:
        self.sinks = sinks

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """The numbers of step `step`, counted from 1; what is None or no number is left out."""
        numbers = {name: float(value) for name, value in metrics.items() if isinstance(value, int | float)}
        numbers.pop(STEP, None)
        for sink in self.sinks:
            sink.log(step, {name: value for name, value in numbers.items() if math.isfinite(value)})

    def pictures(self, step: int, files: Mapping[str, Path]) -> None:
        """Picture files by name."""
        if files:
            for sink in self.sinks:
                sink.pictures(step, files)

    def flush(self) -> None:
        """Everything told so far survives the process."""
        for sink in self.sinks:
            sink.flush()

    def close(self) -> None:
        """Nothing may be told afterwards; every tracker is closed, whatever another one raises."""
        with ExitStack() as stack:
            for sink in self.sinks:
                stack.callback(sink.close)


def open_trackers(options: Trackers, folder: Path, *, run: str, config: dict[str, Any], resume_step: int) -> Tracker:
    """The trackers of run `run` in `folder`, continued after step `resume_step` (0: from the beginning).

    `config`: JSON data shown beside the curves. Raises ConfigError where a package is missing.
    """
    options.check()
    folder.mkdir(parents=True, exist_ok=True)
    sinks: list[Sink] = [JsonLines(folder / LINES, resume_step), TensorBoard(folder / EVENTS, resume_step)]
    if options.wandb is not None:
        sinks.append(WandBRun(options.wandb, folder, run=run, config=config))
    if options.mlflow is not None:
        sinks.append(MLflowRun(options.mlflow, run=run, config=config))
    return Tracker(sinks)


class Sink(ABC):
    """One place that is told."""

    @abstractmethod
    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Finite numbers of one step."""

    @abstractmethod
    def pictures(self, step: int, files: Mapping[str, Path]) -> None:
        """Picture files by name."""

    @abstractmethod
    def flush(self) -> None:
        """Onto the disk."""

    @abstractmethod
    def close(self) -> None:
        """The end."""


class JsonLines(Sink):
    """`{"step": 1, "loss": …}` a line; pictures are a line with their paths."""

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


class TensorBoard(Sink):
    """Event files. A file's session start at a step hides that step and all later ones of the files before it.

    Written here and now: tensorboardX's SummaryWriter has a thread, whose queue a flush does not wait for.
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


class WandBRun(Sink):
    """A run whose id is the training's name. W&B itself drops a step that is not later than its last."""

    def __init__(self, options: WandB, folder: Path, *, run: str, config: dict[str, Any]) -> None:
        import wandb

        self.run = wandb.init(
            project=options.project,
            entity=options.entity,
            id=run,
            name=run,
            resume="allow",
            config=config,
            dir=str(folder),
            mode="offline" if options.offline else "online",
        )
        self.image = wandb.Image

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self.run.log(dict(numbers), step=step)

    def pictures(self, step: int, files: Mapping[str, Path]) -> None:
        self.run.log({name: self.image(str(path)) for name, path in files.items()}, step=step)

    def flush(self) -> None:
        """W&B's own process writes."""

    def close(self) -> None:
        self.run.finish()


class MLflowRun(Sink):
    """A run found again by a tag that holds the training's name; steps the server already has are not told again."""

    def __init__(self, options: MLflow, *, run: str, config: dict[str, Any]) -> None:
        from mlflow.tracking import MlflowClient

        self.client = MlflowClient(tracking_uri=options.uri)
        experiment = self._experiment(options.experiment)
        found = self.client.search_runs([experiment], filter_string=f"tags.`{RUN_TAG}` = '{run}'", max_results=1)
        if found:
            self.id = found[0].info.run_id
            self.client.update_run(self.id, status="RUNNING")
        else:
            self.id = self.client.create_run(experiment, run_name=run, tags={RUN_TAG: run}).info.run_id
            self.client.log_dict(self.id, config, "config.json")
        self.told = self._last_step()

    def _experiment(self, name: str | None) -> str:
        if name is None:
            return "0"
        found = self.client.get_experiment_by_name(name)
        return self.client.create_experiment(name) if found is None else found.experiment_id

    def _last_step(self) -> int:
        names = self.client.get_run(self.id).data.metrics
        return max((point.step for name in names for point in self.client.get_metric_history(self.id, name)), default=0)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        if step <= self.told:
            return
        from mlflow.entities import Metric

        now = time.time_ns() // 1_000_000
        self.client.log_batch(self.id, metrics=[Metric(name, value, now, step) for name, value in numbers.items()])

    def pictures(self, step: int, files: Mapping[str, Path]) -> None:
        for path in files.values():
            self.client.log_artifact(self.id, str(path), f"pictures/{step:06d}")

    def flush(self) -> None:
        """Every call is answered before the next."""

    def close(self) -> None:
        self.client.set_terminated(self.id)
