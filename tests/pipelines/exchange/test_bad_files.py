"""What is broken in a file is an error with its place; the rest is read."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.config import ConfigError
from pipelines.exchange.formats import FORMATS, renames, written_names
from pipelines.exchange.pairs import Layout
from support.pairs import essence, picture, read, some_pairs


def write(name, folder, count=6):
    folder.mkdir(exist_ok=True)
    kind = FORMATS[name]
    medium = kind.holds[0]
    pairs = [p for p in some_pairs(count, clips=medium == "video") if kind.ties or p.choice != "tie"]
    kind.write(iter(pairs), folder, layout=Layout(medium))
    return len(pairs)


def parquet(folder):
    return next(folder.rglob("train-00000.parquet"))


@pytest.mark.parametrize("name", ["salon", "pickapic", "chosen_rejected"])
def test_a_truncated_parquet_file_is_one_error_and_the_other_is_read(name, tmp_path):
    count = write(name, tmp_path)
    whole = parquet(tmp_path)
    (whole.parent / "cut.parquet").write_bytes(whole.read_bytes()[:-20])
    found, wrong = read(tmp_path, format=name)
    assert len(found) == count
    assert len(wrong) == 1 and wrong[0].startswith("data/cut.parquet: it cannot be read")


def test_a_missing_column_is_one_error_that_names_the_remedy(tmp_path):
    write("pickapic", tmp_path)
    path = parquet(tmp_path)
    table = pq.read_table(path)
    pq.write_table(table.rename_columns(["text" if name == "caption" else name for name in table.column_names]), path)
    found, wrong = read(tmp_path, format="pickapic")
    assert not found
    assert len(wrong) == 1 and "no column 'caption'" in wrong[0] and "--map OLD=caption" in wrong[0]


def test_a_json_entry_without_a_key_is_an_error_with_its_line(tmp_path):
    write("hpd", tmp_path)
    path = tmp_path / "train.json"
    entries = json.loads(path.read_text())
    del entries[1]["path2"]
    path.write_text("[\n" + ",\n".join(map(json.dumps, [*entries, "no object", entries[0]])) + "\n]\n")
    found, wrong = read(tmp_path, format="hpd")
    assert len(found) == len(entries)
    assert wrong[0].startswith("train.json line 3: key 'path2' is missing")
    assert wrong[1].startswith(f"train.json line {len(entries) + 2}: it is a str")


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.99])
def test_a_json_list_that_is_cut_off_gives_what_stands_before(cut, tmp_path):
    write("hpd", tmp_path, 9)
    path = tmp_path / "train.json"
    text = path.read_text()
    path.write_text(text[: int(cut * len(text))])
    found, wrong = read(tmp_path, format="hpd")
    assert len(found) == text[: int(cut * len(text))].count('"}') <= 6
    assert len(wrong) == 1 and "train.json line" in wrong[0]


def test_each_bad_line_of_json_lines_is_an_error(tmp_path):
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(picture(number))
    good = json.dumps({"prompt": "p", "chosen": "0.png", "rejected": "1.png"}).encode()
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(b"\n".join([good, b'{"prompt": ', b'{"prompt": "\xff"}', good, b'{"prompt": "\\ud800"}', b"[" * 9999]))
    found, wrong = read(tmp_path, format="chosen_rejected")
    assert len(found) == 2
    assert [line.split(":")[0] for line in wrong] == [f"pairs.jsonl line {n}" for n in (2, 3, 5, 6)]


def test_a_csv_row_of_another_length_and_an_unknown_label_are_errors(tmp_path):
    count = write("videoalign", tmp_path)
    path = tmp_path / "data.csv"
    text = path.read_text()
    files = [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*.mp4"))[:2]]
    row = ",".join([*files, "a fox", "A", "same", "B", "better", *["1"] * 4, "m", "n"])
    path.write_text(text + row + "\n" + "a,b,c\n" + row.replace("better", "A") + "\n")
    found, wrong = read(tmp_path, format="videoalign")
    assert len(found) == count + 1
    assert "is none of A, B, same" in wrong[0]
    assert "it has 3 fields" in wrong[1]
    lines = text.count("\n")
    assert [line.split(":")[0] for line in wrong] == [f"data.csv line {lines + 1}", f"data.csv line {lines + 2}"]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"label_0": 0.3}, "label_0 0.3 and label_1 0.0 must be 1 and 0"),
        ({"label_0": None}, "label_0 None"),
        ({"has_label": False}, "has_label is false"),
        ({"best_image_uid": "tie"}, "its labels mean a, its best_image_uid means tie"),
        ({"caption": " "}, "the prompt is empty"),
    ],
)
def test_a_label_outside_its_set_is_an_error_with_its_row(values, reason, tmp_path):
    count = write("pickapic", tmp_path)
    path = parquet(tmp_path)
    rows = pq.read_table(path).to_pylist()
    rows[0] |= values
    pq.write_table(pa.Table.from_pylist(rows, schema=pq.read_schema(path)), path)
    found, wrong = read(tmp_path, format="pickapic")
    assert len(found) == count - 1
    assert len(wrong) == 1 and wrong[0].startswith("data/train-00000.parquet row 0: ") and reason in wrong[0]


def test_the_second_of_two_equal_ids_is_an_error(tmp_path):
    count = write("salon", tmp_path)
    path = parquet(tmp_path)
    table = pq.read_table(path)
    pq.write_table(pa.concat_tables([table, table.slice(2, 1)]), path)
    found, wrong = read(tmp_path, format="salon")
    assert len(found) == count
    assert wrong == [f"data/train-00000.parquet row {count}: id 'pair2' occurs twice; the first pair with it is kept"]


def test_a_copy_of_a_file_is_one_error(tmp_path):
    count = write("salon", tmp_path)
    (tmp_path / "zzz.parquet").write_bytes(parquet(tmp_path).read_bytes())
    found, wrong = read(tmp_path, format="salon")
    assert len(found) == count
    assert wrong == ["zzz.parquet: the same content as data/train-00000.parquet"]


@pytest.mark.parametrize("path", ["../secret.png", "/etc/passwd", "https://a.b/c.png", "a/../../secret.png"])
def test_no_path_leads_out_of_the_folder(path, tmp_path):
    (tmp_path / "secret.png").write_bytes(picture(0))
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "pairs.jsonl").write_text(json.dumps({"prompt": "p", "chosen": path, "rejected": path}))
    found, wrong = read(folder, format="chosen_rejected")
    assert not found
    assert "outside the folder" in wrong[0] or "no path relative" in wrong[0]


def test_a_link_out_of_the_folder_is_not_followed(tmp_path):
    (tmp_path / "secret.png").write_bytes(picture(0))
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "pairs.jsonl").write_text(json.dumps({"prompt": "p", "chosen": "link.png", "rejected": "link.png"}))
    found, _ = read(folder, format="chosen_rejected")
    assert "outside the folder" in str(found[0].a)


def test_texts_and_tables_that_are_links_out_of_the_folder_are_not_read(tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "secret.jsonl").write_text(json.dumps({"prompt": "secret", "chosen": "x.png", "rejected": "x.png"}))
    folder = tmp_path / "data"
    write("pair_folder", folder, 2)
    (folder / "00000" / "000" / "prompt.txt").unlink()
    (folder / "00000" / "000" / "prompt.txt").symlink_to(tmp_path / "secret.txt")
    found, wrong = read(folder, format="pair_folder")
    assert len(found) == 1
    assert wrong == ["00000/000: 00000/000/prompt.txt lies outside the folder"]
    (folder / "pairs.jsonl").symlink_to(tmp_path / "secret.jsonl")
    found, wrong = read(folder, format="chosen_rejected")
    assert not found
    assert wrong == ["pairs.jsonl: pairs.jsonl lies outside the folder"]


def test_a_snapshot_of_the_hubs_cache_is_links_into_its_own_repository(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "picture").write_bytes(picture(0))
    (tmp_path / "blobs" / "table").write_text(json.dumps({"prompt": "p", "chosen": "a.png", "rejected": "a.png"}))
    folder = tmp_path / "snapshots" / "main"
    folder.mkdir(parents=True)
    (folder / "a.png").symlink_to("../../blobs/picture")
    (folder / "pairs.jsonl").symlink_to("../../blobs/table")
    found, wrong = read(folder, format="chosen_rejected")
    assert not wrong
    assert found[0].a == picture(0)


def test_pages_that_are_damaged_spoil_their_row_group_only(tmp_path):
    table = pa.table({"prompt": [f"p{n}" for n in range(8)], "choice": ["a"] * 8})
    for side in "ab":
        table = table.append_column(f"image_{side}", pa.array([picture(n) for n in range(8)], pa.binary()))
    path = tmp_path / "data.parquet"
    pq.write_table(table, path, row_group_size=4, compression="zstd", use_dictionary=False)
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(2)
    data = bytearray(path.read_bytes())
    start = chunk.data_page_offset
    data[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(data)
    found, wrong = read(tmp_path, format="salon")
    assert not wrong and len(found) == 8
    assert [isinstance(p.a, Exception) for p in found] == [True] * 4 + [False] * 4


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "no prompt.txt"),
        ({"prompt.txt": "p"}, "it holds a"),
        ({"prompt.txt": "p", "b.png": "x"}, "no choice.txt"),
        ({"prompt.txt": "p", "b.png": "x", "choice.txt": "c"}, "none of a, b, tie"),
        ({"prompt.txt": "p", "b.png": "x", "choice.txt": "a", "generators.txt": "one"}, "1 lines"),
        ({"prompt.txt": "p", "b.png": "x", "a.jpg": "y", "choice.txt": "a"}, "it holds a.jpg and a.png; which"),
    ],
)
def test_a_pairs_folder_that_lacks_something_is_an_error(files, reason, tmp_path):
    write("pair_folder", tmp_path, 2)
    place = tmp_path / "mine"
    place.mkdir()
    for name, text in ({"a.png": "x"} | files).items():
        (place / name).write_text(text)
    found, wrong = read(tmp_path, format="pair_folder")
    assert len(found) == 2
    assert len(wrong) == 1 and wrong[0].startswith("mine: ") and reason in wrong[0]


def test_a_folder_with_nothing_of_the_format_is_refused_with_what_it_holds(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ConfigError, match=r"nothing of format pickapic among its 1 files; wanted: \.parquet; found: \.txt"):
        read(tmp_path, format="pickapic")


@pytest.mark.parametrize(
    ("word", "reason"),
    [("text", "OLD=NEW"), ("text=captoin", "did you mean caption"), ("a=caption,", "has no column")],
)
def test_a_new_name_the_format_does_not_know_is_refused(word, reason):
    with pytest.raises(ConfigError, match=reason):
        renames([word], format="pickapic", flag="--map")


@pytest.mark.parametrize(
    ("name", "words", "reason"),
    [
        ("pickapic", ["caption"], "OLD=NEW"),
        ("pickapic", ["captoin=text"], "did you mean caption"),
        ("pickapic", ["caption=text", "caption=words"], "named twice"),
        ("pickapic", ["caption=jpg_0"], "already writes a column 'jpg_0'"),
        ("hpd", ["image_path=paths"], "has no column 'image_path'"),
        ("pair_folder", ["prompt=text"], "it has none"),
    ],
)
def test_a_name_to_write_under_that_cannot_be_is_refused(name, words, reason):
    with pytest.raises(ConfigError, match=reason):
        written_names(words, format=name, flag="--map")


def test_two_columns_may_change_names():
    names = written_names(["chosen=rejected", "rejected=chosen"], format="chosen_rejected", flag="--map")
    assert names == {"chosen": "rejected", "rejected": "chosen"}


def test_adding_a_file_leaves_the_ids_of_the_others(tmp_path):
    write("salon", tmp_path / "one")
    before = {p.id for p in read(tmp_path / "one", format="salon")[0]}
    FORMATS["salon"].write(iter(some_pairs(9)[6:]), tmp_path / "one" / "more", layout=Layout("image"))
    after = read(tmp_path / "one", format="salon")[0]
    assert before < {p.id for p in after}
    assert len(after) == 9


def test_another_picture_behind_a_path_is_another_pair(tmp_path):
    write("hpd", tmp_path)
    before = {p.id: p for p in read(tmp_path, format="hpd")[0]}
    Path(next((tmp_path / "images").rglob("*.png"))).write_bytes(picture(99))
    after = {p.id: p for p in read(tmp_path, format="hpd")[0]}
    assert len(before.keys() - after.keys()) == 1
    assert essence([before[name] for name in before.keys() & after]) == essence(
        [after[name] for name in before.keys() & after]
    )
