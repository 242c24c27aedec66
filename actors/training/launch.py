"""Launches a training loop on Ray Train, and defines the session through which the loop reports and commits.

The loop is a plain function `loop(config, session)`: it knows its rank, reports the metrics of a step and commits
checkpoints, and runs as well in this process (`LocalSession`) as on many workers (`fit`). A run that is
started again under the same name continues from its last committed checkpoint, so the name must contain the work's key.
Ray is imported inside functions: `plan` must not pay for it.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from actors.device import hide_gpus
from infra.config import ConfigError
from infra.dag.stage import Resources

REPORTS = "reports.jsonl"
HALT = "halt.json"
KEPT = 2

# Ray Train's controller polls its workers at this rate: the default of 2 s is added to every checkpoint and to the end, and
# ten polls a second take a twentieth of two cores that train.
# The two observers are processes of their own: 2 s of start-up each on a laptop, and useless on one node.
SWIFT = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5", "RAY_TRAIN_METRICS_ENABLED": "0"}
ONE_NODE = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}

Loop = Callable[[Any, "Session"], None]
OnReport = Callable[[dict[str, Any]], None]


class Halt(RuntimeError):
    """Training cannot go on and would fail in the same way again: raised on every rank together, never retried."""


class Session(ABC):
    """Where a training loop runs: its rank, its folder, and where it reports."""

    rank: int
    world: int
    folder: Path
    """Folder that all workers share and that outlives them."""

    @abstractmethod
    def report(self, metrics: dict[str, Any]) -> None:
        """Reports a finished step to the launcher. Cheap; only rank 0's report is used."""

    @abstractmethod
    def commit(self, checkpoint: Path | None) -> None:
        """Keeps the files of `checkpoint` (rank 0's; None elsewhere) as the place to continue from. Called by all ranks."""

    @abstractmethod
    def checkpoint(self) -> Path | None:
        """The last committed checkpoint, or None at the beginning."""


class LocalSession(Session):
    """One worker: this process. Checkpoints are folders that appear whole or not at all."""

    rank = 0
    world = 1

    def __init__(self, folder: Path, *, on_report: OnReport | None = None) -> None:
        self.folder = folder
        self.on_report = on_report
        folder.mkdir(parents=True, exist_ok=True)

    def report(self, metrics: dict[str, Any]) -> None:
        """Calls `on_report`."""
        if self.on_report is not None:
            self.on_report(metrics)

    def commit(self, checkpoint: Path | None) -> None:
        """Copies the checkpoint under a temporary name, renames it, and forgets all but the last two."""
        if checkpoint is None:
            raise ValueError("rank 0 commits a checkpoint, not None")
        number = 1 + max((int(path.name.split("_")[1]) for path in self._committed()), default=0)
        partial_copy = self.folder / f".partial_{number:06d}"
        shutil.rmtree(partial_copy, ignore_errors=True)
        shutil.copytree(checkpoint, partial_copy)
        os.replace(partial_copy, self.folder / f"checkpoint_{number:06d}")
        for old in self._committed()[:-KEPT]:
            shutil.rmtree(old)

    def checkpoint(self) -> Path | None:
        """The newest checkpoint in the folder."""
        return next(reversed(self._committed()), None)

    def _committed(self) -> list[Path]:
        return sorted(self.folder.glob("checkpoint_*"))


class RaySession(Session):
    """A worker of a Ray Train run."""

    def __init__(self, folder: Path) -> None:
        import ray.train

        self.folder = folder
        self.rank = ray.train.get_context().get_world_rank()
        self.world = ray.train.get_context().get_world_size()

    def report(self, metrics: dict[str, Any]) -> None:
        """Appends a line that the launcher reads; `ray.train.report` would wait for the controller's next poll."""
        if self.rank == 0:
            with (self.folder / REPORTS).open("a") as lines:
                lines.write(json.dumps(metrics) + "\n")

    def commit(self, checkpoint: Path | None) -> None:
        """Uploads to the run's storage and registers with the controller."""
        import ray.train

        kept = None if checkpoint is None else ray.train.Checkpoint.from_directory(str(checkpoint))
        ray.train.report({"committed": True}, checkpoint=kept)

    def checkpoint(self) -> Path | None:
        """The last checkpoint that the controller registered."""
        import ray.train

        kept = ray.train.get_checkpoint()
        return None if kept is None else Path(kept.path)


def fit(
    loop: Loop,
    config: Any,
    *,
    workers: int,
    storage: Path,
    name: str,
    resources: Resources,
    max_failures: int,
    on_report: OnReport | None,
) -> Path:
    """Runs `loop(config, session)` on `workers` Ray Train workers to its end; returns the last checkpoint it committed.

    A run of this name that was killed goes on from its last checkpoint; a worker that dies is replaced, all of them
    starting from the last checkpoint, at most `max_failures` times. A loop that has nothing left to do must return at
    once. Raises Halt or ConfigError where the loop did on every rank, RuntimeError where it never committed a checkpoint.
    """
    folder = (storage / name).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / HALT).unlink(missing_ok=True)
    with _swift(), _heard(folder / REPORTS, on_report):
        result = _trainer(partial(_run, loop, config, folder, resources), workers, folder, resources, max_failures).fit()
    if (folder / HALT).exists():
        told = json.loads((folder / HALT).read_text())
        raise {"Halt": Halt, "ConfigError": ConfigError}[told["kind"]](told["message"])
    if result.checkpoint is None:
        raise RuntimeError(f"training {name!r} ended without a checkpoint; its loop must commit one at the end")
    return Path(result.checkpoint.path)


def here(loop: Loop, config: Any, *, folder: Path, on_report: OnReport | None) -> Path:
    """Runs `loop(config, session)` in this process, continuing what `folder` holds; returns the last checkpoint.

    It is for stages that ask for no GPU: whatever this machine has is hidden from the loop.
    """
    hide_gpus(Resources())
    session = LocalSession(folder, on_report=on_report)
    loop(config, session)
    checkpoint = session.checkpoint()
    if checkpoint is None:
        raise RuntimeError(f"training in {folder} ended without a checkpoint; its loop must commit one at the end")
    return checkpoint


def _trainer(run: Callable[[], None], workers: int, folder: Path, resources: Resources, max_failures: int) -> Any:
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2._internal.callbacks.datasets import DatasetsCallback

    class Trainer(TorchTrainer):
        """Without the process that feeds workers from Ray Data, which nobody here reads and which imports for seconds."""

        def _create_default_callbacks(self) -> list[Any]:
            return [each for each in super()._create_default_callbacks() if not isinstance(each, DatasetsCallback)]

    asked = {"CPU": resources.cpus, "GPU": resources.gpus}
    if resources.memory_gb is not None:
        asked["memory"] = resources.memory_gb * 2**30
    return Trainer(
        run,
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=resources.gpus > 0,
            resources_per_worker={kind: amount for kind, amount in asked.items() if amount},
            label_selector=dict(resources.label_selector) or None,
        ),
        run_config=RunConfig(
            name=folder.name,
            storage_path=str(folder.parent),
            failure_config=FailureConfig(max_failures=max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=KEPT),
        ),
    )


def _run(loop: Loop, config: Any, folder: Path, resources: Resources) -> None:
    """Runs on each worker. A failure that would repeat is stored and not raised, so that Ray does not retry it."""
    hide_gpus(resources)
    session = RaySession(folder)
    try:
        loop(config, session)
    except (Halt, ConfigError) as reason:
        if session.rank == 0:
            (folder / HALT).write_text(json.dumps({"kind": type(reason).__name__, "message": str(reason)}))


@contextmanager
def _swift() -> Iterator[None]:
    """Sets Ray Train's variables while a training runs; variables that the user has set are kept."""
    import ray

    settings = SWIFT | (ONE_NODE if len(ray.nodes()) == 1 else {})
    ours = {name: value for name, value in settings.items() if name not in os.environ}
    logger = logging.getLogger("ray.train")
    level = logger.level
    logger.setLevel(logging.ERROR)
    os.environ.update(ours)
    try:
        yield
    finally:
        logger.setLevel(level)
        for name in ours:
            del os.environ[name]


@contextmanager
def _heard(path: Path, on_report: OnReport | None) -> Iterator[None]:
    """Passes each new line of `path` to `on_report`, from a thread, until the end."""
    if on_report is None:
        yield
        return
    offset = path.stat().st_size if path.exists() else 0
    ended = threading.Event()

    def listen() -> None:
        position, last = offset, False
        while not last:
            last = ended.wait(0.5)
            if not path.exists():
                continue
            with path.open("rb") as lines:
                lines.seek(position)
                fresh = lines.read()
            whole = fresh[: fresh.rfind(b"\n") + 1]
            position += len(whole)
            for line in whole.splitlines():
                on_report(json.loads(line))

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield
    finally:
        ended.set()
        listener.join()


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A folder to write a checkpoint into before it is committed, on the same disk; gone afterwards."""
    path = Path(tempfile.mkdtemp(prefix=".writing_", dir=parent))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
