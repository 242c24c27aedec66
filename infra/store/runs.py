"""Runs of a store: their files and logs, the newest run, a run by name, the artifact of a node of a run.

{root}/runs/{name}.json      recipe, arguments, status, and the stages with their keys
{root}/runs/{name}.log       every line that was printed, with its time
{root}/runs/{name}.workers/  what its workers wrote

A name belongs to one run: it is claimed by making the file, so that two runs of one second, or two with one name, never
share one. A file that cannot be read is named and skipped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infra.config import ConfigError
from infra.store.artifacts import Artifact, Store
from infra.store.record import read_record
from infra.store.tables import write_atomic

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
LOG, WORKER_LOGS = ".log", ".workers"
"""Suffixes of a run's log and of the folder of its workers' logs."""
NEEDED = {"name": str, "started": str, "status": str, "stages": list}
OF_STAGE = ("node", "stage", "key")


def require_name(text: str) -> str:
    """A name that is safe as a file's name; raises ConfigError."""
    if not NAME.fullmatch(text):
        shown = repr(text if len(text) <= 60 else f"{text[:59]}…")
        raise ConfigError(
            f"{shown} is no name of a run; use at most 100 letters, digits, '.', '_' and '-', a letter or digit first"
        )
    return text


@dataclass(frozen=True)
class Runs:
    """The runs of a store, oldest first, and what is wrong with files that are none."""

    readable: list[dict[str, Any]]
    broken: list[str] = field(default_factory=list)
    """`runs/NAME.json: REASON`."""


def read_runs(store: Store) -> Runs:
    """Every run's file."""
    found, broken = [], []
    folder = store.root / "runs"
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        try:
            found.append(_read(path))
        except (OSError, ValueError) as error:
            broken.append(f"runs/{path.name}: {error}")
    return Runs(sorted(found, key=lambda run: (run["started"], run["name"])), broken)


def _read(path: Path) -> dict[str, Any]:
    """A run's file with all that its readers need; raises ValueError for anything else."""
    try:
        data = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError("it is not JSON") from error
    if not isinstance(data, dict):
        raise ValueError("it is not a run")
    for name, kind in NEEDED.items():
        if not isinstance(data.get(name), kind):
            raise ValueError(f"its {name!r} is missing or of another type")
    if data["name"] != path.stem:
        raise ValueError(f"it says that it is run {data['name']!r}")
    for outcome in data["stages"]:
        if not isinstance(outcome, dict) or not all(_is_part(outcome.get(name)) for name in OF_STAGE):
            raise ValueError("one of its stages has no node, stage or key")
    defaults = {"recipe": "", "arguments": {}, "commit": "", "keys": []}
    return defaults | data


def _is_part(value: Any) -> bool:
    """Whether a value can be a part of a path below the store."""
    return isinstance(value, str) and value not in ("", ".", "..") and "/" not in value and "\0" not in value


def newest_run(store: Store) -> dict[str, Any]:
    """The run that was started last; raises ConfigError where there is none."""
    return _all(store)[-1]


def run_named(store: Store, name: str | None) -> dict[str, Any]:
    """The run of that name, or the newest; raises ConfigError listing the runs there are."""
    runs = _all(store)
    if name is None:
        return runs[-1]
    for run in runs:
        if run["name"] == name:
            return run
    known = "\n  ".join(run["name"] for run in reversed(runs[-20:]))
    raise ConfigError(f"no run {name!r} in {store.root}; its runs, newest first:\n  {known}")


def run_at(path: Path) -> tuple[Store, dict[str, Any]]:
    """A store and one of its runs, by the run's file ({root}/runs/{name}.json); raises ConfigError for any other file."""
    try:
        run = _read(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is no run: {error}; give the file of a run, STORE/runs/NAME.json") from error
    return Store(path.resolve().parent.parent), run


def _all(store: Store) -> list[dict[str, Any]]:
    found = read_runs(store)
    if not found.readable:
        also = f" that can be read ({found.broken[0]})" if found.broken else ""
        remedy = "give the folder of a run with --root, or start one with salon run"
        raise ConfigError(f"{store.root} holds no run{also}; {remedy}")
    return found.readable


def nodes_of(run: Mapping[str, Any], stages: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The outcomes of a run that are nodes of one of these stages, by node."""
    return {outcome["node"]: outcome for outcome in run["stages"] if outcome["stage"] in stages}


def node_of(run: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The outcome of a node, or of the only node of that stage; raises ConfigError naming what there is."""
    outcomes = [o for o in run["stages"] if o["node"] == name] or [o for o in run["stages"] if o["stage"] == name]
    if len(outcomes) != 1:
        names = ", ".join(o["node"] for o in outcomes or run["stages"]) or "none: the run has finished no stage"
        problem = f"several nodes are stage {name!r}" if outcomes else f"no stage {name!r}"
        raise ConfigError(f"{problem} in run {run['name']}; give one of {names}")
    return outcomes[0]


def artifact_of(store: Store, outcome: Mapping[str, Any]) -> Artifact:
    """The artifact of a run's stage, as it stands now; raises ConfigError where it is gone."""
    directory = store.place(outcome["stage"], outcome["key"])
    record = read_record(directory)
    if record is None:
        raise ConfigError(f"{directory} was removed or is being computed; salon run or salon import makes it anew")
    return Artifact(directory, record)


@dataclass
class RunFile:
    """The file and the log of a run in progress; the name is claimed when it is made."""

    store: Store
    name: str
    path: Path
    log: Path

    @classmethod
    def claim(cls, store: Store, name: str, *, recipe: str, started: datetime) -> RunFile:
        """A name that no other run has: the one asked for, or recipe and time; NAME-2, NAME-3, … where it is taken."""
        own = re.sub(r"[^A-Za-z0-9._-]+", "-", recipe).strip("-._") or "run"
        base = require_name(name or f"{own[:80]}-{started:%Y%m%d-%H%M%S}")
        folder = store.root / "runs"
        folder.mkdir(parents=True, exist_ok=True)
        number = 1
        while True:
            chosen = base if number == 1 else f"{base}-{number}"
            path = folder / f"{chosen}.json"
            claimed = cls(store, chosen, path, folder / f"{chosen}{LOG}")
            try:
                with path.open("x") as file:
                    begun = {"started": started.isoformat(timespec="milliseconds"), "status": "running", "stages": []}
                    file.write(claimed._text(begun))
            except FileExistsError:
                number += 1
                continue
            return claimed

    def write(self, data: Mapping[str, Any]) -> None:
        """Writes the run's file anew, whole, by renaming."""
        write_atomic(self.path, self._text(data).encode())

    def _text(self, data: Mapping[str, Any]) -> str:
        return json.dumps({"name": self.name} | dict(data), indent=1, sort_keys=True, default=str)

    def line(self, text: str) -> None:
        """Appends a line to the log, with the time (UTC) before it."""
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
        with self.log.open("a", encoding="utf-8") as file:
            file.write("".join(f"{now}  {part}\n" for part in text.splitlines() or [""]))
