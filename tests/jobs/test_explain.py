"""`salon explain`: identity, parents, files, and what an artifact differs in from the one before."""

import json


def test_what_an_artifact_differs_in_from_the_one_before(salon, numbers_store):
    found = json.loads(salon("explain", "numbers", "--json", "--root", numbers_store)[1])
    assert found["differences"] == ["count: 10 -> 12"]
    assert found["identity"] == {"stage": "numbers", "version": 1, "count": 12}
    first = json.loads(salon("explain", "numbers", "--run", "ten", "--json", "--root", numbers_store)[1])
    assert first["key"] == found["previous"]
    assert first["differences"] == []


def test_parents_files_and_libraries(salon, numbers_store):
    found = json.loads(salon("explain", "squares", "--json", "--root", numbers_store)[1])
    numbers = json.loads(salon("explain", "numbers", "--json", "--root", numbers_store)[1])
    assert found["parents"] == {"numbers": f"numbers/{numbers['key']}"}
    assert (found["computed_rows"], found["reused_rows"]) == (4, 8)
    assert sum(file["rows"] for file in found["files"] if file["name"].startswith("part-")) == 12
    assert {"python", "ray", "pyarrow"} <= set(found["libraries"])


def test_for_people(salon, numbers_store):
    status, out, _ = salon("explain", "sum", "--root", numbers_store)
    assert status == 0
    assert "scale = 1" in out and "squares: squares/" in out and "part-00000.parquet  1 rows" in out


def test_a_parent_that_changed_since_is_said(salon, own_store):
    for path in (own_store / "artifacts" / "squares").glob("*/artifact.json"):
        record = json.loads(path.read_text())
        record["files"][0]["sha256"] = "0" * 64
        path.write_text(json.dumps(record))
    assert json.loads(salon("explain", "sum", "--json", "--root", own_store)[1])["changed_parents"] == ["squares"]


def test_an_unknown_stage_names_the_stages(salon, numbers_store):
    status, _, message = salon("explain", "cubes", "--root", numbers_store)
    assert status == 2
    assert "give one of numbers, squares, sum" in message
