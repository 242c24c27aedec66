"""What a store no longer needs, and its removal.

Needed is what the files of the kept runs name, and all ancestors of that. While a run's file cannot be read, every artifact
is needed: nobody knows which ones that run uses. A stage that some process is computing right now is left alone altogether:
it may be taking rows over from artifacts that no run names. Unfinished artifacts are resumable work and stay unless asked
for. The logs of a run go with its file, or after it where somebody deleted the file alone.
"""

from __future__ import annotations

import fcntl
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.store.artifacts import ASIDE, Store
from infra.store.record import NAME, read_record
from infra.store.runs import LOG, WORKER_LOGS, Runs, read_runs

RECENT_S = 3600.0  # younger locks and temporary files may be about to be used


@dataclass(frozen=True)
class Waste:
    """One file or folder to remove, and why."""

    path: Path
    reason: str
    bytes: int
    lock: str = ""  # "{stage}-{key}" to hold while it goes; "" where nobody else can want it


def bytes_below(path: Path) -> int:
    """Size of a file, or of all files below a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


@contextmanager
def unused(store: Store, name: str) -> Iterator[bool]:
    """Holds the lock `name` where nobody does (yields True); never waits, never creates a lock file."""
    try:
        file = (store.root / "locks" / f"{name}.lock").open("r")
    except FileNotFoundError:
        yield True
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


@dataclass
class Collector:
    """Finds the waste of a store."""

    store: Store
    keep_runs: int | None = None  # the newest so many; None keeps all
    unfinished: bool = False  # remove resumable work of runs that did not finish, too
    busy: set[str] = field(default_factory=set)  # locks that are held, "{stage}-{key}"
    runs: Runs = field(init=False)

    def __post_init__(self) -> None:
        self.runs = read_runs(self.store)
        for path in (self.store.root / "locks").glob("*.lock"):
            with unused(self.store, path.stem) as free:
                if not free:
                    self.busy.add(path.stem)

    def waste(self) -> list[Waste]:
        """Everything to remove."""
        runs = self.runs.readable
        kept = self._kept_runs(runs)
        needed = self._needed(kept)
        found = [waste for run in runs if run not in kept for waste in self._run(run)]
        for directory in self.store.folders():
            found += self._of_artifact(directory, needed)
        for directory in self.store.retired():
            found += self._of_retired(directory)
        return [*found, *self._logs(), *self._scratch(), *self._locks(needed), *self._temporary()]

    def _kept_runs(self, runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The newest, and every one that may be in progress."""
        if self.keep_runs is None:
            return list(runs)
        newest = runs[max(len(runs) - self.keep_runs, 0) :]
        return [run for run in runs if run in newest or self._in_progress(run)]

    def _in_progress(self, run: dict[str, Any]) -> bool:
        if run["status"] != "running":
            return False
        return bool(self.busy) or _age(self._run_path(run)) < RECENT_S

    def _run_path(self, run: dict[str, Any]) -> Path:
        return self.store.root / "runs" / f"{run['name']}.json"

    def _run(self, run: dict[str, Any]) -> Iterator[Waste]:
        """Its file, its log and the logs of its workers."""
        path = self._run_path(run)
        for part in (path, path.with_suffix(LOG), path.with_suffix(WORKER_LOGS)):
            if part.exists():
                yield Waste(part, "run not kept", bytes_below(part))

    def _logs(self) -> Iterator[Waste]:
        """Logs of runs whose file is gone. The file is there before the logs are, also of a run that cannot be read."""
        folder = self.store.root / "runs"
        for path in sorted([*folder.glob(f"*{LOG}"), *folder.glob(f"*{WORKER_LOGS}")]):
            if not path.with_suffix(".json").exists():
                yield Waste(path, "log of no run", bytes_below(path))

    def _needed(self, runs: Sequence[dict[str, Any]]) -> set[tuple[str, str]]:
        """(stage, key) of what the runs name and of all it was made from."""
        if self.runs.broken:
            todo = [(folder.parent.name, folder.name) for folder in self.store.folders()]
        else:
            todo = [(outcome["stage"], outcome["key"]) for run in runs for outcome in run["stages"]]
            todo += [(stage, key) for run in runs if run["status"] == "running" for stage, key in run["keys"]]
        needed: set[tuple[str, str]] = set()
        while todo:
            stage, key = todo.pop()
            if (stage, key) in needed:
                continue
            needed.add((stage, key))
            record = read_record(self.store.place(stage, key))
            todo += [(parent.stage, parent.key) for parent in record.parents.values()] if record else []
        return needed

    def _stage_busy(self, stage: str) -> bool:
        return any(name.startswith(f"{stage}-") for name in self.busy)

    def _of_artifact(self, directory: Path, needed: set[tuple[str, str]]) -> Iterator[Waste]:
        stage, key = directory.parent.name, directory.name
        if self._stage_busy(stage):
            return
        lock = f"{stage}-{key}"
        if not (directory / NAME).is_file():
            if self.unfinished:
                yield Waste(directory, "unfinished", bytes_below(directory), lock)
        elif (stage, key) not in needed:
            yield Waste(directory, "used by no run", bytes_below(directory), lock)
        else:
            for path in sorted([*directory.glob("*.damaged"), *directory.glob(".tmp-*")]):
                yield Waste(path, "left over", bytes_below(path), lock)

    def _of_retired(self, directory: Path) -> Iterator[Waste]:
        """A replaced artifact, unless an unfinished successor still takes its rows over."""
        stage, key = directory.parent.name, directory.name.partition(ASIDE)[0]
        successor = self.store.place(stage, key)
        if self._stage_busy(stage) or (successor.exists() and not (successor / NAME).is_file() and not self.unfinished):
            return
        yield Waste(directory, "replaced", bytes_below(directory), f"{stage}-{key}")

    def _scratch(self) -> Iterator[Waste]:
        for path in sorted((self.store.root / "scratch").glob("*")):
            stage, _, key = path.name.rpartition("-")
            finished = (self.store.place(stage, key) / NAME).is_file()
            if path.name not in self.busy and (finished or self.unfinished):
                yield Waste(path, "scratch", bytes_below(path), path.name)

    def _locks(self, needed: set[tuple[str, str]]) -> Iterator[Waste]:
        """Old locks of artifacts that are not there or go: taking a lock touches its file, so an old one is nobody's."""
        for path in sorted((self.store.root / "locks").glob("*.lock")):
            stage, _, key = path.stem.rpartition("-")
            if path.stem not in self.busy and (stage, key) not in needed and _age(path) > RECENT_S:
                yield Waste(path, "lock", 0, path.stem)

    def _temporary(self) -> Iterator[Waste]:
        for folder in (self.store.root / "runs", self.store.root / "cache"):
            for path in sorted(folder.glob(".tmp-*")):
                if _age(path) > RECENT_S:
                    yield Waste(path, "left over", bytes_below(path))


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")


def remove(store: Store, waste: Waste) -> bool:
    """Removes it unless its lock is held now; an artifact is retired first, so that half of one is no artifact."""
    with unused(store, waste.lock) if waste.lock else _free() as free:
        if not free:
            return False
        path = waste.path
        if path.is_dir():
            if (path / NAME).is_file() and ASIDE not in path.name:
                path = store.retire(path)
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return True


@contextmanager
def _free() -> Iterator[bool]:
    yield True
