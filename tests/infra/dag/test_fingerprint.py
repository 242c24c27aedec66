"""The law of the cache: what a run leaves in a store does not depend on what earlier runs left there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pytest
from pydantic import Field

from infra.dag.failed import StageFailed
from infra.dag.fingerprint import hash_rows
from infra.dag.plan import HIT, CachePolicy, Planner
from infra.dag.run import Runner
from infra.dag.selection import Selection
from infra.dag.source import Sources
from infra.dag.stage import Context, Inputs, Places, RowStage, RunInputs, Stage, TableStage, Worker, topological
from infra.store.artifacts import Store
from infra.store.record import read_record
from support.inline import InlineExecutor
from support.numbers import numbers
from tests.benchmarks.quiet import Quiet


@dataclass(frozen=True)
class Word:
    """A word."""

    id: str
    text: str


class Words(TableStage):
    """Words a, b, c …; every third is unusable where asked. What it appends, a file outside its options says."""

    name: ClassVar = "words"
    row: ClassVar = Word
    count: int = 4
    bad: int = 0
    said: str = Field("", exclude=True)

    def run(self, context: Context) -> Iterator[Word]:
        for number in range(self.count):
            if number < self.bad:
                context.quarantine(str(number), f"word {number} cannot be read")
            else:
                yield Word(str(number), chr(97 + number) + (Path(self.said).read_text() if self.said else ""))


class Shout:
    """Looks words up and says them louder."""

    def __init__(self, words, *, mark: str) -> None:
        self.words, self.mark = words, mark

    def open(self, device: str, places: Places) -> None:
        pass

    def run(self, cells: pa.Table) -> list[Word]:
        found = self.words.take(cells["word"].to_pylist(), ["text"])["text"].to_pylist()
        rows = zip(cells.to_pylist(), found, strict=True)
        return [Word(row["id"], text.upper() + row["end"] + self.mark) for row, text in rows]


class Loud(RowStage):
    """Words in; each louder out. The id names the word alone: what it ends with and its mark are not in it."""

    name: ClassVar = "loud"
    row: ClassVar = Word
    in_cells: ClassVar = ("end",)
    words: Words
    end: str = ""
    mark: str = "!"
    silent: bool = Field(False, exclude=True)
    shard_rows: int = 2

    def cells(self, inputs: Inputs) -> pa.Table:
        ids = inputs.table(self.words, ["id"])["id"].to_pylist()
        ends = [self.end if number else "" for number in range(len(ids))]
        return pa.table({"id": [f"loud {name}" for name in ids], "word": ids, "end": ends})

    def looks_up(self) -> dict[str, Stage]:
        return {} if self.silent else {"word": self.words}

    def worker(self, inputs: RunInputs) -> Worker:
        return Shout(inputs.lookup(self.words), mark=self.mark)


def run(root: Path, target: Stage, *, policy: CachePolicy | None = None, **selection) -> dict:
    chosen = Selection(**selection)
    runner = Runner(Store(root), InlineExecutor(), Quiet(), policy or CachePolicy(), recipe="test")
    return {outcome.stage: outcome for outcome in runner.run(target, chosen).values()}


def content(root: Path, target: Stage) -> dict[str, bytes]:
    """The bytes of every file of rows and weights of a DAG."""
    store, found = Store(root), {}
    for stage in topological(target):
        directory = store.directory(stage)
        record = read_record(directory)
        assert record is not None
        for name, _ in record.every_file():
            found[f"{stage.node}/{name}"] = (directory / name).read_bytes()
    return found


@pytest.mark.parametrize("change", [{"end": "?"}, {"mark": "."}, {"shard_rows": 3}, {"words": Words(count=7)}])
def test_a_run_after_another_leaves_the_bytes_of_a_run_alone(tmp_path, change):
    first, then = Loud(words=Words()), Loud(**{"words": Words()} | change)
    run(tmp_path / "shared", first)
    run(tmp_path / "shared", then)
    run(tmp_path / "alone", then)
    assert content(tmp_path / "shared", then) == content(tmp_path / "alone", then)


def test_only_rows_whose_whole_cell_is_equal_are_taken_over(tmp_path):
    run(tmp_path, Loud(words=Words()))
    changed = run(tmp_path, Loud(words=Words(), end="?"))["loud"]
    assert (changed.rows, changed.reused_rows) == (4, 1)
    assert run(tmp_path, Loud(words=Words(), mark="."))["loud"].reused_rows == 0
    assert run(tmp_path, Loud(words=Words(count=7)))["loud"].reused_rows == 4


def test_rows_made_from_a_parents_former_content_are_not_taken_over(tmp_path):
    said = tmp_path / "said"
    said.write_text("")
    target = Loud(words=Words(said=str(said)))
    run(tmp_path / "store", target)
    said.write_text("h")
    again = run(tmp_path / "store", target, force=("words",))["loud"]
    assert (again.state, again.reused_rows) == ("computed", 0)
    longer = Loud(words=Words(count=6, said=str(said)))
    assert run(tmp_path / "store", longer)["loud"].reused_rows == 4
    texts = {row.text for row in Store(tmp_path / "store").artifact(longer).rows(Word)}
    assert texts == {f"{letter}H!" for letter in "ABCDEF"}


def test_a_worker_that_reads_what_its_stage_does_not_name_is_refused(tmp_path):
    with pytest.raises(StageFailed, match=r"the worker of Loud reads words; name it in reads\(\) or looks_up\(\)"):
        run(tmp_path, Loud(words=Words(), silent=True))


def test_a_stage_in_one_piece_quarantines_rows_and_fails_where_they_are_too_many(tmp_path):
    target = Words(count=40, bad=2)
    assert run(tmp_path, target)["words"].error_rows == 2
    with pytest.raises(StageFailed, match=r"3 of 40 rows were quarantined.*row 0: Quarantined: word 0 cannot be read"):
        run(tmp_path, Words(count=40, bad=3))
    assert run(tmp_path, Words(count=40, bad=3, max_error_share=0.5))["words"].error_rows == 3


def test_rows_that_fail_again_change_nothing_downstream(tmp_path):
    faults = tmp_path / "faults"
    faults.write_text("3=raise")
    target = numbers(faults=str(faults))
    run(tmp_path / "store", target)
    again = run(tmp_path / "store", target, policy=CachePolicy(retry_errors=True))
    assert (again["squares"].state, again["sum"].state) == ("computed", HIT)


def test_what_plan_foresees_of_looked_up_rows_is_what_run_does(tmp_path):
    run(tmp_path, Loud(words=Words()))
    longer = Loud(words=Words(count=7))
    run(tmp_path, longer, until="words")
    planner = Planner(store=Store(tmp_path), policy=CachePolicy(), sources=Sources(None))
    plans = [planner.plan(stage) for stage in topological(longer)]
    assert (plans[-1].to_do, plans[-1].to_reuse) == (3, 4)
    assert run(tmp_path, longer)["loud"].reused_rows == 4


def test_a_rows_hash_is_of_every_column_and_of_where_one_ends():
    table = pa.table({"a": ["x", "xy", "x", None], "b": ["yz", "z", "yz", ""], "c": [1.0, 1.0, 1.0, 1.0]})
    first, second, third, fourth = hash_rows(table).to_pylist()
    assert first == third and len({first, second, fourth}) == 3
    assert hash_rows(table.rename_columns(["a", "b", "d"]))[0] != hash_rows(table)[0]
    media = pa.table({"image": [{"bytes": b"1", "path": None}, {"bytes": b"2", "path": None}], "tags": [["q"], ["q"]]})
    assert len(set(hash_rows(media).to_pylist())) == 2
