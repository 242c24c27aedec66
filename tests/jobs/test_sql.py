"""`salon sql`: the newest run or any by name, three forms of output, and messages with remedies."""

import csv
import io
import json


def test_the_newest_run_as_an_aligned_table(salon, numbers_store):
    status, out, _ = salon("sql", "SELECT value, square FROM squares ORDER BY value LIMIT 2", "--root", numbers_store)
    assert status == 0
    assert out.splitlines() == ["value  square", "─────  ──────", "    0       0", "    1       1"]


def test_json_of_a_named_run_with_its_quarantined_rows(salon, numbers_store):
    sql = "SELECT type, message FROM squares_errors ORDER BY message"
    status, out, _ = salon("sql", sql, "--run", "ten", "--json", "--root", numbers_store)
    assert status == 0
    wanted = [{"type": "ValueError", "message": f"cannot square {value}"} for value in (3, 4)]
    assert json.loads(out) == wanted


def test_csv_of_all_runs(salon, numbers_store):
    sql = "SELECT run, count(*) AS n FROM squares GROUP BY run ORDER BY n"
    status, out, _ = salon("sql", sql, "--unioned", "--csv", "--root", numbers_store)
    assert status == 0
    assert list(csv.reader(io.StringIO(out))) == [["run", "n"], ["ten", "8"], ["twelve", "12"]]


def test_no_rows_are_an_empty_list(salon, numbers_store):
    assert json.loads(salon("sql", "SELECT * FROM squares WHERE false", "--json", "--root", numbers_store)[1]) == []


def test_bytes_structs_and_repeated_names_have_a_json_form(salon, numbers_store):
    sql = "SELECT 'a'::BLOB AS x, 'nan'::DOUBLE AS x, {'d': DATE '2026-01-02'} AS s"
    status, out, _ = salon("sql", sql, "--json", "--root", numbers_store)
    assert status == 0
    assert json.loads(out) == [{"x": "YQ==", "x_1": None, "s": {"d": "2026-01-02"}}]


def test_a_wrong_query_is_duckdbs_message(salon, numbers_store):
    status, _, message = salon("sql", "SELECT cube FROM squares", "--root", numbers_store)
    assert status == 2
    assert "Binder Error" in message and "cube" in message


def test_an_unknown_view_lists_the_views(salon, numbers_store):
    status, _, message = salon("sql", "SELECT * FROM cubes", "--root", numbers_store)
    assert status == 2
    assert "squares, squares_errors" in message


def test_an_unknown_run_lists_the_runs(salon, numbers_store, tmp_path):
    status, _, message = salon("sql", "SELECT 1", "--run", "eleven", "--root", numbers_store)
    assert status == 2
    assert "twelve\n  ten" in message
    status, _, message = salon("sql", "SELECT 1", "--root", tmp_path / "nowhere")
    assert (status, "holds no run" in message) == (2, True)


def test_a_deleted_file_is_named_with_the_remedy(salon, own_store):
    for path in (own_store / "artifacts").glob("squares/*/part-00000.parquet"):
        path.unlink()
    status, _, message = salon("sql", "SELECT * FROM squares", "--root", own_store)
    assert status == 2
    assert "part-00000.parquet is gone; salon run computes it anew" in message
    assert salon("sql", "SELECT * FROM numbers", "--root", own_store)[0] == 0
