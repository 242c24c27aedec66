"""The law of the cache over a recipe: what a run leaves in a store does not depend on what earlier runs left there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from infra.dag.run import Runner
from infra.dag.selection import Selection
from infra.dag.stage import Stage, topological
from infra.store.artifacts import Store
from infra.store.record import read_record
from tests.benchmarks.quiet import Quiet
from tests.support.inline import InlineExecutor

TIMED = ("weights/tracked/",)
"""Folders of files that hold the time of day: curves as TensorBoard and JSON lines keep them."""
TIMED_STAGES = ("report", "gate")
"""The report says how long each stage took, and the gate comes after it."""


def run_alone(store: Store, target: Stage) -> None:
    """Computes what is missing of a DAG, in this process; only training asks for Ray."""
    Runner(store, InlineExecutor(), Quiet(), recipe="law").run(target, Selection())


def content(store: Store, target: Stage) -> dict[str, str]:
    """The SHA-256 of every file of rows and weights of a finished DAG, by node and path."""
    found = {}
    for stage in topological(target):
        record = read_record(store.directory(stage))
        assert record is not None, f"{stage.node} has not run"
        if stage.name not in TIMED_STAGES:
            files = {name: file.sha256 for name, file in record.every_file() if not name.startswith(TIMED)}
            found |= {f"{stage.node}/{name}": digest for name, digest in files.items()}
    return found


def copied(store: Store, place: Path) -> Store:
    """A store with the same artifacts; files are hard links, which no run writes into."""
    shutil.copytree(store.root, place, copy_function=os.link)
    return Store(place)


def only(store: Store, target: Stage, place: Path) -> Store:
    """A store with what a DAG shares with another by key, and nothing else: as if it had run there up to that point."""
    made = Store(place)
    for stage in topological(target):
        if read_record(store.directory(stage)) is not None:
            shutil.copytree(store.directory(stage), made.directory(stage), copy_function=os.link)
    return made


def differing(there: dict[str, str], here: dict[str, str]) -> list[str]:
    """Files of one content that the other lacks or has with other bytes."""
    return sorted(name for name in there.keys() | here.keys() if there.get(name) != here.get(name))
