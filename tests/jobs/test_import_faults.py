"""Every format with every fault at once, through the command: what is broken is told with its place, the rest comes in."""

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.exchange.formats import FORMATS
from pipelines.exchange.pairs import Layout
from support.pairs import some_pairs

COUNT = 9
FILE = "data/train-00000.parquet"


@pytest.fixture(autouse=True)
def _ray(ray_session):
    """One Ray for every command in this process."""


def parquet(folder: Path, *, label: dict, picture: str, twice: dict, required: str) -> list[str]:
    """A label outside its set, a picture that does not decode, an id that occurs twice, a column that is missing, a file
    that is cut off.
    """
    path = folder / FILE
    rows, schema = pq.read_table(path).to_pylist(), pq.read_schema(path)
    rows[0] |= label
    value = rows[1][picture]
    rows[1][picture] = value | {"bytes": value["bytes"][:40]} if isinstance(value, dict) else value[:40]
    rows.append(rows[2] | twice)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    table = pq.read_table(path)
    pq.write_table(table.slice(3, 2).drop_columns([required]), folder / "data" / "lacking.parquet")
    (folder / "data" / "cut.parquet").write_bytes(path.read_bytes()[:-20])
    return [
        f"{FILE} row 0: ",
        f"{FILE} row 1: {picture} does not decode",
        f"{FILE} row {len(rows) - 1}: id ",
        f"data/lacking.parquet: no column {required!r}",
        "data/cut.parquet: it cannot be read",
    ]


def salon_faults(folder: Path) -> list[str]:
    return parquet(folder, label={"choice": "maybe"}, picture="image_a", twice={}, required="choice")


def pickapic_faults(folder: Path) -> list[str]:
    return parquet(folder, label={"label_0": 0.3}, picture="jpg_1", twice={}, required="label_0")


def chosen_rejected_faults(folder: Path) -> list[str]:
    return parquet(folder, label={"agreement": 1.5}, picture="chosen", twice={}, required="rejected")


def hpd_faults(folder: Path) -> list[str]:
    path = folder / "train.json"
    entries = [entry | {"id": f"e{n}"} for n, entry in enumerate(json.loads(path.read_text()))]
    entries[0]["choice_dist"] = [1, 2, 3]
    (folder / entries[1]["path2"]).write_bytes(b"\x89PNG broken")
    entries.append(entries[2] | {"confidence": 0.7})
    entries.append({name: value for name, value in entries[3].items() if name != "prompt"})
    text = "[\n" + ",\n".join(map(json.dumps, entries)) + "\n]\n"
    path.write_text(text)
    (folder / "cut.json").write_text(text[: text.index("\n", 3) + 9])
    return [
        "train.json line 2: choice_dist [1, 2, 3]",
        f"train.json line 3: {entries[1]['path2']} does not decode",
        f"train.json line {len(entries)}: id 'e2' occurs twice",
        f"train.json line {len(entries) + 1}: key 'prompt' is missing",
        "cut.json line 2: choice_dist",
        "cut.json line 3: ",
    ]


def videoalign_faults(folder: Path) -> list[str]:
    path = folder / "data.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows = [row | {"id": f"r{n}", "prompt": f"a fox, {n}"} for n, row in enumerate(rows)]
    rows[0]["VQ"] = "better"
    (folder / rows[1]["path_A"]).write_bytes(b"no clip")
    rows.append(rows[2] | {"MQ": "A"})
    for name, columns in (("data.csv", list(rows[0])), ("lacking.csv", [n for n in rows[0] if n != "path_B"])):
        with (folder / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
    with path.open("a") as file:
        file.write("cut,off")
    return [
        "data.csv line 2: VQ 'better' is none of A, B, same",
        f"data.csv line 3: {rows[1]['path_A']} does not decode",
        f"data.csv line {len(rows) + 1}: id 'r2' occurs twice",
        f"data.csv line {len(rows) + 2}: it has 2 fields, the header has {len(rows[0])}",
        "lacking.csv: no column 'path_B'",
    ]


def pair_folder_faults(folder: Path) -> list[str]:
    places = sorted((folder / "00000").iterdir())
    (places[0] / "choice.txt").write_text("maybe")
    (places[1] / "a.png").write_bytes(b"\x89PNG broken")
    (places[3] / "prompt.txt").unlink()
    copy = folder / "later"
    copy.mkdir()
    for path in places[2].iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    return [
        "00000/000: choice.txt holds 'maybe'",
        "00000/001: 00000/001/a.png does not decode",
        "00000/003: no prompt.txt",
        "later: the same content as 00000/002",
    ]


FAULTS = {
    "salon": salon_faults,
    "pickapic": pickapic_faults,
    "hpd": hpd_faults,
    "videoalign": videoalign_faults,
    "chosen_rejected": chosen_rejected_faults,
    "pair_folder": pair_folder_faults,
}
SPOILT = {"salon": 2, "pickapic": 2, "hpd": 2, "videoalign": 2, "chosen_rejected": 2, "pair_folder": 3}
"""Pairs of the folder as it was written that do not come in; every other fault was added beside them."""


def test_every_format_is_here():
    assert FAULTS.keys() == FORMATS.keys() == SPOILT.keys()


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_told_with_their_place_and_the_rest_comes_in(name, salon, tmp_path):
    kind, folder = FORMATS[name], tmp_path / "pairs"
    folder.mkdir()
    medium = kind.holds[0]
    pairs = [pair for pair in some_pairs(COUNT, clips=medium == "video") if kind.ties or pair.choice != "tie"]
    kind.write(iter(pairs), folder, layout=Layout(medium, ["VQ", "MQ"]))
    wanted = FAULTS[name](folder)
    status, out, message = salon("import", name, folder, "--root", tmp_path / "store")
    assert status == 1, out + message
    reasons = [line.strip() for line in out.split(" left out", 1)[1].splitlines()[1:]]
    for one in wanted:
        assert any(reason.startswith(one) for reason in reasons), (one, reasons)
    assert len(reasons) == len(wanted)
    kept = len(pairs) - SPOILT[name]
    assert f"{kept} of {kept + len(wanted)} pairs imported, {len(wanted)} left out" in out
