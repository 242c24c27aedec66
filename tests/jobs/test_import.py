"""`salon import`: what it says and with which status, from good folders and bad ones."""

import json
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.exchange.formats import FORMATS
from pipelines.exchange.pairs import Layout
from support.pairs import picture, some_pairs


@pytest.fixture(autouse=True)
def _ray(ray_session):
    """One Ray for every command in this process."""


def write(name, folder, *, clips=False):
    folder.mkdir()
    medium = "video" if clips else "image"
    pairs = [p for p in some_pairs(clips=clips) if FORMATS[name].ties or p.choice != "tie"]
    FORMATS[name].write(iter(pairs), folder, layout=Layout(medium))
    return folder


def test_all_came_in_is_status_0_and_again_is_a_hit(salon, tmp_path):
    folder, root = write("pickapic", tmp_path / "pairs"), ("--root", tmp_path / "store")
    status, out, _ = salon("import", "pickapic", folder, *root, "--run-name", "one")
    assert status == 0, out
    last = out.splitlines()[-1]
    assert last.startswith("6 of 6 pairs imported, 0 left out, ") and last.endswith(" pairs/s")
    status, out, _ = salon("import", "pickapic", folder, *root)
    assert (status, out.splitlines()[-1]) == (0, "6 of 6 pairs imported, 0 left out, all there before")
    sql = "SELECT choice, count(*) AS n FROM import_labels GROUP BY choice ORDER BY choice"
    found = json.loads(salon("sql", sql, "--json", *root)[1])
    assert found == [{"choice": choice, "n": 2} for choice in ("a", "b", "tie")]


def test_something_left_out_is_status_1_with_file_and_line_every_time(salon, tmp_path):
    folder, root = write("hpd", tmp_path / "pairs"), ("--root", tmp_path / "store")
    entries = json.loads((folder / "train.json").read_text())
    del entries[0]["path1"]
    (folder / entries[1]["path2"]).write_bytes(b"no picture")
    (folder / "train.json").write_text("[\n" + ",\n".join(map(json.dumps, entries)) + "\n]")
    for _ in range(2):
        status, out, _ = salon("import", "hpd", folder, *root)
        assert status == 1
        assert "2 of 4 pairs imported, 2 left out" in out
        assert "train.json line 2: key 'path1' is missing" in out
        assert f"train.json line 3: {entries[1]['path2']} does not decode" in out
    message = json.loads(salon("sql", "SELECT message FROM import_errors", "--json", *root)[1])[0]["message"]
    assert message.startswith("train.json line 3: ")


def test_more_errors_than_fit_are_counted_with_the_query_that_lists_them(salon, tmp_path):
    folder, root = tmp_path / "pairs", tmp_path / "store"
    folder.mkdir()
    table = pa.table({"prompt": ["p"] * 15, "choice": ["a"] + ["maybe"] * 14})
    for side in "ab":
        table = table.append_column(f"image_{side}", pa.array([picture(n) for n in range(15)], pa.binary()))
    pq.write_table(table, folder / "data.parquet")
    status, out, _ = salon("import", "salon", folder, "--root", root)
    assert status == 1
    assert "1 of 15 pairs imported, 14 left out" in out
    *_, last = out.splitlines()
    assert last.startswith(f"  and 4 more: salon sql --root {root} ")
    query = last.split("'")[1]
    assert len(json.loads(salon("sql", query, "--json", "--root", root)[1])) == 14


def test_clips_are_known_by_their_names(salon, tmp_path):
    folder = write("videoalign", tmp_path / "pairs", clips=True)
    status, out, _ = salon("import", "videoalign", folder, "--root", tmp_path / "store")
    assert status == 0, out
    assert "import_clips" in out


def test_a_column_is_renamed(salon, tmp_path):
    folder, root = write("pickapic", tmp_path / "pairs"), ("--root", tmp_path / "store")
    path = next(folder.rglob("*.parquet"))
    table = pq.read_table(path)
    names = {"caption": "text", "jpg_0": "first"}
    pq.write_table(table.rename_columns([names.get(name, name) for name in table.column_names]), path)
    status, out, message = salon("import", "pickapic", folder, *root)
    assert (status, "no column 'caption'" in out, "can be used as format pickapic" in message) == (2, True, True)
    assert salon("import", "pickapic", folder, *root, "--map", "text=caption", "first=jpg_0")[0] == 0


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["pick", "{folder}"], "did you mean pickapic?"),
        (["pickapic", "{folder}/nowhere"], "no such folder"),
        (["hpd", "{folder}"], "holds nothing of format hpd"),
        (["pickapic", "{folder}", "--map", "text"], "OLD=NEW"),
        (["pickapic", "{folder}", "--map", "text=cap"], "has no column 'cap'"),
        (["pickapic", "{folder}", "--clips"], "holds no clips"),
        (["pickapic", "{folder}", "--mop", "a=b"], "did you mean --map?"),
    ],
)
def test_bad_input_is_status_2_before_any_work(words, reason, salon, tmp_path):
    folder = write("pickapic", tmp_path / "pairs")
    given = [word.replace("{folder}", str(folder)) for word in words]
    status, _, message = salon("import", *given, "--root", tmp_path / "store")
    assert (status, reason in message) == (2, True), message
    assert not (tmp_path / "store").exists()


def test_the_command_stands_alone(tmp_path):
    folder = write("chosen_rejected", tmp_path / "pairs")
    environment = os.environ | {"SALON_RAY_TMP": f"/tmp/salon-ray-{os.getpid()}"}
    command = [sys.executable, "-m", "jobs.import_", "chosen_rejected", str(folder), "--root", str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 of 4 pairs imported" in done.stdout
