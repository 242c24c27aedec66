"""Stages in one piece are computed beside one another, row-wise ones alone; a failure loses nothing of the others."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import Field

from actors.executor import RayExecutor
from infra.dag.failed import StageFailed
from infra.dag.run import Runner
from infra.dag.schedule import Schedule
from infra.dag.selection import Selection
from infra.dag.stage import Context, Resources, Stage, TableStage
from infra.store.artifacts import Store
from infra.store.record import read_record
from support.numbers import Numbers, Squares
from tests.benchmarks.quiet import Quiet


@dataclass(frozen=True)
class Met:
    """What a stage found when it ran."""

    node: str
    others: int


class Meeting(TableStage):
    """Leaves a mark in a folder, and waits there for the marks of others, or fails."""

    name: ClassVar = "meeting"
    row: ClassVar = Met
    place: str
    who: str
    """A label is no part of the identity; this is."""
    others: int = Field(0, ge=0)
    """Marks of others to wait for."""
    fails: bool = False

    def run(self, context: Context) -> Iterator[Met]:
        del context
        place = Path(self.place)
        (place / self.who).touch()
        for _ in range(200):
            if len(list(place.iterdir())) > self.others:
                break
            time.sleep(0.1)
        if self.fails:
            raise ValueError("no agreement")
        yield Met(self.who, len(list(place.iterdir())) - 1)


class Gathering(TableStage):
    """Stands on several stages."""

    name: ClassVar = "gathering"
    row: ClassVar = Met
    meetings: tuple[Stage, ...]

    def run(self, context: Context) -> Iterator[Met]:
        for meeting in self.meetings:
            yield from context.rows(meeting)


@pytest.fixture
def run(ray_session, tmp_path):
    """run(target) -> the store; every run of a test has the same one."""

    def of(target: Stage) -> Store:
        store = Store(tmp_path / "store")
        with RayExecutor(workers=2) as executor:
            Runner(store, executor, Quiet(), recipe="meetings").run(target, Selection())
        return store

    return of


@pytest.fixture
def place(tmp_path):
    folder = tmp_path / "place"
    folder.mkdir()
    return folder


def meeting(place: Path, label: str, **options) -> Meeting:
    return Meeting(place=str(place), who=label, label=label, **options)


def others_met(store: Store, stage: TableStage) -> list[int]:
    return [row.others for row in store.artifact(stage).rows(stage.row)]


def test_two_stages_in_one_piece_run_at_the_same_time(run, place):
    both = Gathering(meetings=(meeting(place, "one", others=1), meeting(place, "two", others=1)))
    assert others_met(run(both), both) == [1, 1]


def test_where_one_fails_the_other_is_finished_and_nothing_more_is_begun(run, place, tmp_path):
    good, bad = meeting(place, "good", others=1), meeting(place, "bad", others=1, fails=True)
    both = Gathering(meetings=(good, bad))
    with pytest.raises(StageFailed, match=r"meeting\[bad\] failed: ValueError: no agreement"):
        run(both)
    store = Store(tmp_path / "store")
    assert read_record(store.directory(good)) is not None
    assert read_record(store.directory(bad)) is None and read_record(store.directory(both)) is None


def test_a_cluster_without_room_for_both_computes_one_after_the_other(run, place):
    many = Resources(workers=1, cpus=0, gpus=16)  # the task itself holds nothing, so that it runs where no GPU is
    both = Gathering(meetings=(meeting(place, "one", resources=many), meeting(place, "two", resources=many)))
    assert sorted(others_met(run(both), both)) == [0, 1]


def order_of(stages: list[Stage]) -> list[list[str]]:
    """What ran when each stage began, the stage itself last."""
    schedule, seen = Schedule(), []

    def settle(stage: Stage):
        seen.append([*sorted(schedule.running), stage.node])
        return lambda: time.sleep(0.2)

    schedule.run(stages, settle=settle, room=lambda asked, others: True, failed=lambda error: None)
    return seen


def test_a_row_wise_stage_has_the_run_to_itself_and_what_is_ready_does_not_wait_for_its_turn(place):
    source = Numbers()
    squares = Squares(numbers=source)
    first, late = meeting(place, "first"), meeting(place, "late")
    all_of_them = Gathering(meetings=(first, squares, late))
    assert order_of([source, first, squares, late, all_of_them]) == [
        ["numbers"],
        ["numbers", "meeting[first]"],
        ["meeting[first]", "numbers", "meeting[late]"],
        ["squares"],
        ["gathering"],
    ]


def test_an_interrupt_gives_up_what_runs():
    schedule, noticed = Schedule(), []

    def waits():
        with schedule.others_turn():
            for _ in range(100):
                time.sleep(0.05)
                try:
                    schedule.require_going_on()
                except RuntimeError:
                    noticed.append("given up")
                    raise

    def settle(stage: Stage):
        if stage.node == "meeting[second]":
            raise KeyboardInterrupt
        return waits

    stages = [meeting(Path(), name) for name in ("first", "second")]
    with pytest.raises(KeyboardInterrupt):
        schedule.run(stages, settle=settle, room=lambda asked, others: True, failed=noticed.append)
    assert noticed == ["given up"]
