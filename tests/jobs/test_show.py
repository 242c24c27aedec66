"""`salon show`: the runs of a store, and the stages of one."""

import json


def test_runs_of_a_store(salon, numbers_store):
    status, out, _ = salon("show", "--root", numbers_store)
    assert status == 0
    assert "--count 12" in out
    runs = json.loads(salon("show", "--json", "--root", numbers_store)[1])
    assert [(run["run"], run["status"], run["errors"]) for run in runs] == [("ten", "done", 2), ("twelve", "done", 0)]


def test_stages_of_a_run(salon, numbers_store):
    status, out, _ = salon("show", "ten", "--root", numbers_store)
    assert status == 0
    assert out.splitlines()[0].split() == ["node", "key", "state", "rows", "errors", "seconds", "bytes", "artifact"]
    stages = json.loads(salon("show", "ten", "--json", "--root", numbers_store)[1])
    found = [(stage["node"], stage["rows"], stage["errors"], stage["artifact"]) for stage in stages]
    assert found == [("numbers", 10, 0, "whole"), ("squares", 8, 2, "whole"), ("sum", 1, 0, "whole")]
    assert all(stage["bytes"] > 0 for stage in stages)


def test_damage_is_seen(salon, own_store):
    next((own_store / "artifacts" / "sum").glob("*/part-00000.parquet")).unlink()
    stages = [json.loads(salon("show", run, "--json", "--root", own_store)[1])[-1] for run in ("ten", "twelve")]
    assert sorted(stage["artifact"] for stage in stages) == ["damaged", "whole"]


def test_an_unknown_run_is_bad_input(salon, numbers_store):
    status, _, message = salon("show", "eleven", "--root", numbers_store)
    assert (status, "its runs, newest first" in message) == (2, True)
