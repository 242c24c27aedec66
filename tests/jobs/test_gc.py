"""`salon gc`: what no kept run uses goes; what a run uses, resumes or is computing stays."""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path


def files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def freed(out: str) -> int:
    return int(out.splitlines()[-1].split()[-4])


def keys(root: Path, run: str) -> dict[str, str]:
    return {stage["stage"]: stage["key"] for stage in json.loads((root / "runs" / f"{run}.json").read_text())["stages"]}


def test_nothing_of_a_kept_run_goes(salon, own_store):
    before = files(own_store)
    status, out, _ = salon("gc", "--root", own_store)
    assert (status, freed(out), files(own_store)) == (0, 0, before)


def test_artifacts_of_runs_that_are_not_kept_go(salon, own_store):
    old, new = keys(own_store, "ten"), keys(own_store, "twelve")
    before = files(own_store)
    _, dry, _ = salon("gc", "--keep-runs", 1, "--dry-run", "--root", own_store)
    assert files(own_store) == before
    _, out, _ = salon("gc", "--keep-runs", 1, "--root", own_store)
    assert freed(out) == freed(dry) > 0
    left = files(own_store)
    assert not any(key in name for key in old.values() for name in left if name.startswith("artifacts"))
    assert {name for name in before if any(key in name for key in new.values())} <= left
    assert salon("sql", "SELECT * FROM squares", "--root", own_store)[0] == 0
    assert salon("gc", "--keep-runs", 1, "--root", own_store)[1].startswith("freed 0 bytes")


def test_parents_of_what_is_kept_are_kept(salon, own_store):
    path = own_store / "runs" / "twelve.json"
    run = json.loads(path.read_text())
    run["stages"] = [stage for stage in run["stages"] if stage["stage"] == "sum"]
    parents = keys(own_store, "twelve")
    path.write_text(json.dumps(run))
    salon("gc", "--keep-runs", 1, "--root", own_store)
    assert all((own_store / "artifacts" / stage / key / "artifact.json").is_file() for stage, key in parents.items())


def test_superseded_scratch_and_left_over_files_go(salon, own_store):
    key = keys(own_store, "ten")["squares"]
    old = own_store / "retired" / "squares" / f"{key}.old-0"
    scratch = own_store / "scratch" / f"squares-{key}"
    for folder in (old, scratch):
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(b"12345")
    (own_store / "artifacts" / "squares" / key / ".tmp-part").write_bytes(b"1")
    assert freed(salon("gc", "--root", own_store)[1]) == 11
    assert not old.exists() and not scratch.exists()


def test_unfinished_work_stays_unless_asked_for(salon, own_store):
    folder = own_store / "artifacts" / "squares" / ("0" * 24)
    folder.mkdir()
    (folder / "part-00000.parquet").write_bytes(b"12345")
    assert freed(salon("gc", "--root", own_store)[1]) == 0
    assert freed(salon("gc", "--unfinished", "--root", own_store)[1]) == 5
    assert not folder.exists()


def test_a_stage_that_is_being_computed_is_left_alone(salon, own_store):
    old = keys(own_store, "ten")
    with (own_store / "locks" / f"squares-{keys(own_store, 'twelve')['squares']}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        salon("gc", "--keep-runs", 1, "--root", own_store)
    assert (own_store / "artifacts" / "squares" / old["squares"] / "artifact.json").is_file()
    assert not (own_store / "artifacts" / "sum" / old["sum"]).exists()


def test_a_run_in_progress_is_kept_and_a_killed_one_is_not(salon, own_store):
    path = own_store / "runs" / "ten.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "running"}))
    assert freed(salon("gc", "--keep-runs", 1, "--root", own_store)[1]) == 0
    long_ago = time.time() - 7200
    os.utime(path, (long_ago, long_ago))
    assert freed(salon("gc", "--keep-runs", 1, "--root", own_store)[1]) > 0


def test_old_locks_go_with_their_artifacts(salon, own_store):
    long_ago = time.time() - 7200
    for path in (own_store / "locks").iterdir():
        os.utime(path, (long_ago, long_ago))
    salon("gc", "--keep-runs", 1, "--root", own_store)
    assert len(list((own_store / "locks").iterdir())) == 3


def test_logs_go_with_the_run_that_wrote_them_and_after_a_run_whose_file_was_deleted(salon, own_store):
    runs = own_store / "runs"
    for name in ("ten", "twelve", "deleted"):
        (runs / f"{name}.workers").mkdir(exist_ok=True)
        (runs / f"{name}.workers" / "squares-0.log").write_bytes(b"12345")
    (runs / "deleted.log").write_bytes(b"12")
    _, out, _ = salon("gc", "--dry-run", "--root", own_store)
    assert freed(out) == 7 and "runs/deleted.workers" in out and "runs/deleted.log" in out
    salon("gc", "--keep-runs", 1, "--root", own_store)
    assert {path.name for path in runs.iterdir()} == {"twelve.json", "twelve.log", "twelve.workers"}


def test_logs_of_a_run_that_cannot_be_read_stay(salon, own_store):
    (own_store / "runs" / "ten.json").write_text("{")
    (own_store / "runs" / "ten.workers").mkdir(exist_ok=True)
    salon("gc", "--root", own_store)
    assert (own_store / "runs" / "ten.workers").is_dir() and (own_store / "runs" / "ten.log").is_file()


def test_bad_input(salon, own_store, tmp_path):
    assert salon("gc", "--root", tmp_path / "nowhere")[0] == 2
    status, _, message = salon("gc", "--keep-runs", 0, "--root", own_store)
    assert (status, "--keep-runs: '0' is no number" in message) == (2, True)
