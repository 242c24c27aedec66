"""MLflow."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field

from actors.training.trackers.base import Sink
from infra.config import Config, ConfigError

RUN_TAG = "salon.run"
CONNECT_S = 5.0
"""Seconds in which a server must take a connection."""


class MLflow(Config):
    """An MLflow server or folder."""

    uri: str = Field(min_length=1)
    """For instance `http://tracking:5000` or `sqlite:///mlflow.db`."""
    experiment: str | None = None
    """None for the server's default."""

    def check(self) -> None:
        """Raises ConfigError, within seconds, where the URI is a server's and nothing takes connections there."""
        try:
            parts = urlsplit(self.uri)
            if parts.scheme not in ("http", "https"):
                return
            address = (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
            socket.create_connection(address, timeout=CONNECT_S).close()
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"--mlflow {self.uri}: no server takes connections there ({error}); start it (mlflow server), correct the "
                "address, or leave the flag out"
            ) from error


class MLflowRun(Sink):
    """A run, found again by a tag that holds the training's name; steps that the server already has are not sent again."""

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
