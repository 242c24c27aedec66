"""All trackers of a training: TensorBoard and JSON lines always, W&B and MLflow where asked.

A training that was killed is continued from its last checkpoint and computes the steps after it again, with the same
numbers. They replace the earlier ones: TensorBoard is told to purge, JSON lines are cut off, and the two services, whose
histories only grow, are not sent a step twice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from actors.training.trackers.base import STEP, Sink
from actors.training.trackers.jsonl import JsonLines
from actors.training.trackers.mlflow_runs import MLflow, MLflowRun
from actors.training.trackers.tensorboard import TensorBoard
from actors.training.trackers.weights_and_biases import WandB, WandBRun
from infra.config import Config, ConfigError

LINES, EVENTS = "metrics.jsonl", "tensorboard"


class Trackers(Config):
    """Trackers in addition to TensorBoard and JSON lines, which are always written."""

    wandb: WandB | None = None
    mlflow: MLflow | None = None

    def check(self) -> None:
        """Raises ConfigError where a package is missing or no server answers; call it before anything is computed."""
        for package, wanted in (("wandb", self.wandb), ("mlflow", self.mlflow)):
            if wanted is not None and find_spec(package) is None:
                raise ConfigError(f"tracker {package} is not installed; pip install 'salon[{package}]', or leave it out")
        if self.mlflow is not None:
            self.mlflow.check()


class Tracker:
    """All sinks of a training."""

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
        """What was logged so far survives the process."""
        for sink in self.sinks:
            sink.flush()

    def close(self) -> None:
        """Nothing may be logged afterwards; every sink is closed, whatever another one raises."""
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
