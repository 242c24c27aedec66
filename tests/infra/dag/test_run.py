"""A DAG is computed once, resumed where it stopped, and every kind of damage is noticed: on the numbers DAG, on Ray."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from actors.executor import RayExecutor
from infra.cluster.connection import logical_cpus
from infra.config import ConfigError
from infra.dag.failed import StageFailed
from infra.dag.plan import HIT, MISS, PARTIAL, CachePolicy, Planner
from infra.dag.run import Runner
from infra.dag.selection import Selection
from infra.dag.source import Sources, normalised
from infra.dag.stage import Resources, topological
from infra.store.artifacts import Store
from infra.store.record import NewerRecord, read_record
from support.numbers import numbers

pytestmark = pytest.mark.usefixtures("ray_session")


class Listener:
    """Keeps what a run says."""

    def __init__(self):
        self.plans, self.lines = {}, []

    def planned(self, plan):
        self.plans[plan.node] = plan

    def advanced(self, node, done, total, note):
        pass

    def finished(self, node, record):
        pass

    def said(self, line):
        self.lines.append(line)

    def log_to(self, write):
        pass


@pytest.fixture(scope="module")
def executor(ray_session):
    with RayExecutor(workers=2) as made:
        yield made


@pytest.fixture
def work(executor, tmp_path):
    """run(recipe arguments) -> plans; the same store each time."""

    def run(*, selection=None, policy=None, **arguments):
        listener = Listener()
        runner = Runner(Store(tmp_path / "store"), executor, listener, policy or CachePolicy(), recipe="numbers")
        runner.run(numbers(**arguments), selection or Selection())
        return listener.plans

    run.root = tmp_path / "store"
    run.journal = tmp_path / "journal"
    return run


def foresee(root: Path, policy: CachePolicy | None = None, **arguments):
    planner = Planner(Store(root), policy or CachePolicy(), Sources(None))
    return {stage.node: planner.plan(stage) for stage in topological(numbers(**arguments))}


def computed(journal: Path) -> list[int]:
    return [int(line) for line in journal.read_text().split()] if journal.exists() else []


def directory(root: Path, node: str, **arguments) -> Path:
    return next(Store(root).directory(s) for s in topological(numbers(**arguments)) if s.node == node)


def data(root: Path) -> dict[str, bytes]:
    folder = root / "artifacts"
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*.parquet"))}


def test_a_second_run_computes_nothing(work):
    work(journal=str(work.journal))
    plans = work(journal=str(work.journal))
    assert {plan.state for plan in plans.values()} == {HIT}
    assert sorted(computed(work.journal)) == list(range(10))


def test_more_rows_compute_only_the_new_ones_and_plan_says_so_before(work):
    work(count=10, journal=str(work.journal))
    foreseen = foresee(work.root, count=14)["squares"]
    assert (foreseen.state, foreseen.rows, foreseen.to_do, foreseen.to_reuse) == (PARTIAL, 14, 4, 10)
    plans = work(count=14, journal=str(work.journal))
    assert plans["squares"].to_do == foreseen.to_do
    assert sorted(computed(work.journal)) == list(range(14))


def test_rows_taken_over_give_the_same_bytes_as_rows_computed(work, executor, tmp_path):
    work(count=9)
    work(count=13)
    other = Runner(Store(tmp_path / "other"), executor, Listener(), recipe="numbers")
    other.run(numbers(count=13), Selection())
    here, there = (directory(root, "squares", count=13) for root in (work.root, tmp_path / "other"))
    parts = sorted(path.name for path in there.glob("part-*.parquet"))
    assert parts and all((here / name).read_bytes() == (there / name).read_bytes() for name in parts)


def test_an_option_of_one_stage_leaves_the_others_alone(work):
    work()
    plans = work(scale=3)
    assert [plans[node].state for node in ("numbers", "squares", "sum")] == [HIT, HIT, MISS]
    assert plans["sum"].why == ("scale: 1 -> 3",)


def test_an_empty_stage_is_an_empty_typed_artifact(work):
    work(count=0)
    table = pq.read_table(directory(work.root, "squares", count=0) / "part-00000.parquet")
    assert table.num_rows == 0 and table.column_names == ["id", "value", "square"]


@pytest.mark.parametrize("how", ["delete", "truncate"])
def test_a_missing_or_short_shard_is_no_hit_and_alone_computed_again(work, how):
    work(journal=str(work.journal))
    before = data(work.root)
    work.journal.unlink()
    shard = directory(work.root, "squares") / "part-00001.parquet"
    ids = pq.read_table(shard)["value"].to_pylist()
    shard.unlink() if how == "delete" else shard.write_bytes(shard.read_bytes()[:-3])
    plan = foresee(work.root)["squares"]
    assert plan.state == PARTIAL and plan.to_do == len(ids) and "part-00001.parquet" in plan.why[0]
    plans = work(journal=str(work.journal))
    assert sorted(computed(work.journal)) == sorted(ids)
    assert plans["sum"].state == HIT
    assert data(work.root) == before


def test_a_flipped_byte_is_found_by_verify_and_alone_computed_again(work):
    work(journal=str(work.journal))
    before = data(work.root)
    work.journal.unlink()
    shard = directory(work.root, "squares") / "part-00002.parquet"
    whole = bytearray(shard.read_bytes())
    whole[40] ^= 4
    shard.write_bytes(bytes(whole))
    assert foresee(work.root)["squares"].state == HIT
    assert foresee(work.root, CachePolicy(verify=True))["squares"].state == PARTIAL
    work(journal=str(work.journal), policy=CachePolicy(verify=True))
    assert len(computed(work.journal)) == 2
    assert data(work.root) == before


def test_a_flipped_byte_is_found_by_the_stage_that_reads_it(work):
    work()
    shard = directory(work.root, "squares") / "part-00000.parquet"
    whole = bytearray(shard.read_bytes())
    whole[40] ^= 4
    shard.write_bytes(bytes(whole))
    with pytest.raises(StageFailed, match=r"part-00000\.parquet is damaged"):
        work(scale=5)
    plans = work(scale=5)
    assert plans["squares"].state == PARTIAL and plans["squares"].to_do == 4


def test_a_row_that_raises_is_quarantined_and_retried_on_request(work, tmp_path):
    faults = tmp_path / "faults"
    faults.write_text("3=raise")
    work(faults=str(faults), journal=str(work.journal))
    record = read_record(directory(work.root, "squares"))
    assert (record.rows, record.error_rows) == (9, 1)
    errors = pq.read_table(directory(work.root, "squares") / "errors.parquet").to_pylist()
    assert [(e["type"], e["message"]) for e in errors] == [("ValueError", "cannot square 3")]
    assert "Traceback" in errors[0]["traceback"]
    faults.write_text("")
    work.journal.unlink()
    retry = CachePolicy(retry_errors=True)
    assert foresee(work.root, retry)["squares"].to_do == 1
    plans = work(faults=str(faults), journal=str(work.journal), policy=retry)
    assert computed(work.journal) == [3]
    assert plans["sum"].state != HIT, "the parent's rows have changed"
    record = read_record(directory(work.root, "squares"))
    assert (record.rows, record.error_rows) == (10, 0)


def test_an_exception_returned_for_one_row_quarantines_it_and_nothing_is_computed_twice(work, tmp_path):
    faults = tmp_path / "faults"
    faults.write_text("3=give")
    work(faults=str(faults), journal=str(work.journal))
    errors = pq.read_table(directory(work.root, "squares") / "errors.parquet").to_pylist()
    assert [(e["type"], e["message"], e["attempts"]) for e in errors] == [("ValueError", "no square of 3", 1)]
    assert sorted(computed(work.journal)) == list(range(10))


def test_too_many_bad_rows_fail_the_stage_and_name_one(work, tmp_path):
    faults = tmp_path / "faults"
    faults.write_text(" ".join(f"{n}=raise" for n in range(6)))
    with pytest.raises(StageFailed, match=r"max_error_share = 0\.25.*ValueError: cannot square"):
        work(faults=str(faults))


def test_a_row_that_kills_its_actor_is_quarantined_and_the_rest_done(work, tmp_path):
    faults = tmp_path / "faults"
    faults.write_text("5=exit")
    work(faults=str(faults), journal=str(work.journal))
    record = read_record(directory(work.root, "squares"))
    assert (record.rows, record.error_rows) == (9, 1)
    errors = pq.read_table(directory(work.root, "squares") / "errors.parquet").to_pylist()
    assert errors[0]["type"] == "RowKilledItsActor"
    assert set(computed(work.journal)) == set(range(10)) - {5}


def test_a_row_that_never_comes_back_is_found_by_the_watchdog(work, tmp_path):
    faults = tmp_path / "faults"
    faults.write_text("6=sleep")
    work(faults=str(faults), stall_s=4.0)
    errors = pq.read_table(directory(work.root, "squares", stall_s=4.0) / "errors.parquet").to_pylist()
    assert len(errors) == 1 and "no progress for 4 s" in errors[0]["message"]


def test_a_model_that_cannot_be_loaded_ends_the_stage_at_once(work, tmp_path):
    faults = tmp_path / "faults"
    faults.write_text("open=raise")
    with pytest.raises(StageFailed, match="no weights here") as failed:
        work(faults=str(faults))
    assert failed.value.workers is not None and str(failed.value.workers) in str(failed.value)


def test_every_worker_has_a_log_of_its_own_with_times(work):
    work()
    logs = sorted((work.root / "runs").glob("*.workers/*.log"))
    assert 1 <= len(logs) <= 2, "one for each actor"
    lines = [line for log in logs for line in log.read_text().splitlines()]
    assert any(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  squares are computed here", line) for line in lines)


def test_a_stage_with_workers_of_its_own_gets_what_idle_actors_held(executor, work):
    work()
    assert executor._pools, "actors are kept from stage to stage"
    executor.make_room(Resources(workers=1))
    assert executor._pools, "there is room beside them"
    executor.make_room(Resources(workers=1000))
    assert not executor._pools


def test_a_local_ray_has_room_for_every_worker_of_the_largest_stage_and_more(executor):
    assert logical_cpus([Resources(workers=2), Resources(workers=16)]) > 16
    assert logical_cpus([Resources(workers=4, cpus=3)]) > 12


def test_a_process_that_ends_while_loading_is_tried_a_bounded_number_of_times(work, tmp_path):
    faults = tmp_path / "faults"
    faults.write_text("open=exit")
    with pytest.raises(StageFailed, match="3 times while loading"):
        work(faults=str(faults))


def test_a_record_of_a_newer_version_is_refused(work):
    work()
    path = directory(work.root, "sum") / "artifact.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    with pytest.raises(NewerRecord, match="newer Salon"):
        foresee(work.root)


def test_a_half_written_artifact_without_a_record_is_none(work):
    work(journal=str(work.journal))
    (directory(work.root, "squares") / "artifact.json").unlink()
    shutil.rmtree(directory(work.root, "sum"))
    work.journal.unlink()
    plan = foresee(work.root)["squares"]
    assert (plan.state, plan.to_do) == (PARTIAL, 0)
    work(journal=str(work.journal))
    assert computed(work.journal) == []


def test_force_computes_again_and_unchanged_bytes_leave_the_children_alone(work):
    work(journal=str(work.journal))
    plans = work(journal=str(work.journal), selection=Selection(force=("squares",)))
    assert sorted(computed(work.journal)) == sorted([*range(10), *range(10)])
    assert plans["sum"].state == HIT


def test_only_needs_its_parents(work):
    with pytest.raises(ConfigError, match="squares needs numbers, which is not there; run it first with --until numbers"):
        work(selection=Selection(only="squares"))
    work(selection=Selection(until="numbers"))
    assert list(work(selection=Selection(only="squares"))) == ["squares"]


def test_an_unknown_stage_is_named_with_the_known_ones(work):
    with pytest.raises(
        ConfigError, match="--until cube: no such stage in this recipe; its stages are numbers, squares, sum"
    ):
        work(selection=Selection(until="cube"))


def test_strict_code_recomputes_where_the_source_changed(work):
    work(journal=str(work.journal))
    path = directory(work.root, "squares") / "artifact.json"
    record = json.loads(path.read_text())
    record["source"] = {"pipelines/other.py": "0"}
    path.write_text(json.dumps(record))
    plan = foresee(work.root)["squares"]
    assert plan.state == HIT and plan.source_changed == ("pipelines/other.py",)
    assert foresee(work.root, CachePolicy(strict_code=True))["squares"].to_do == 10


def test_comments_and_docstrings_are_no_source():
    assert normalised('"""Doc."""\n# why\nx = 1  # one\n') == normalised("x=1")
    assert normalised("x = 1") != normalised("x = 2")
