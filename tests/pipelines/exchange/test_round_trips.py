"""What is written in a format and read again is the same pairs, as far as the format can say it."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from actors.media import ending, measures
from pipelines.exchange.formats import FORMATS
from pipelines.exchange.pairs import Layout
from pipelines.exchange.salon import MARGIN
from support.pairs import clip, essence, picture, read, some_pairs, winner_first

HOLDING = [(name, medium) for name, kind in FORMATS.items() for medium in kind.holds]


def write(name, folder, pairs, *, medium="image", **options):
    folder.mkdir()
    FORMATS[name].write(iter(pairs), folder, layout=Layout(medium, ["TA", "VQ"], **options))
    return folder


@pytest.mark.parametrize(("name", "medium"), HOLDING)
def test_prompts_choices_makers_and_files_come_back(name, medium, tmp_path):
    kind = FORMATS[name]
    pairs = [pair for pair in some_pairs(clips=medium == "video") if kind.ties or pair.choice != "tie"]
    found, wrong = read(write(name, tmp_path / "out", pairs, medium=medium), format=name)
    assert not wrong
    assert essence(found) == essence(pairs if kind.ties else [winner_first(pair) for pair in pairs])


def test_salon_says_all_there_is(tmp_path):
    pairs = some_pairs()
    found, _ = read(write("salon", tmp_path / "out", pairs, subsets=True), format="salon")
    said = {(p.prompt, p.a): (p.agreement, p.score, p.margins, p.subset) for p in found}
    assert said == {(p.prompt, p.a): (p.agreement, p.score, p.margins, p.subset) for p in pairs}


@pytest.mark.parametrize("name", ["hpd", "chosen_rejected"])
def test_the_agreement_comes_back_where_there_is_a_place_for_it(name, tmp_path):
    pairs = [pair for pair in some_pairs() if pair.choice != "tie"]
    found, _ = read(write(name, tmp_path / "out", pairs), format=name)
    assert sorted(p.agreement for p in found) == sorted(p.agreement for p in pairs)


def test_videoalign_keeps_the_signs_of_its_own_dimensions(tmp_path):
    pairs = some_pairs(clips=True)
    found, _ = read(write("videoalign", tmp_path / "out", pairs, medium="video"), format="videoalign")
    signs = {(p.prompt, p.a): p.margins for p in pairs}
    assert all(p.margins == signs[p.prompt, p.a] for p in found)


def test_writing_twice_gives_the_same_files_and_a_picture_of_two_pairs_is_written_once(tmp_path):
    pairs = [p for p in some_pairs(2) if p.choice != "tie"] * 2
    folders = [write("hpd", tmp_path / name, pairs) for name in ("one", "other")]
    files = [{p.relative_to(f): p.read_bytes() for p in f.rglob("*") if p.is_file()} for f in folders]
    assert files[0] == files[1]
    assert len(files[0]) == 1 + 4


def test_hugging_face_opens_salons_data_set_as_pictures(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    from datasets import load_dataset

    pairs = some_pairs()
    folder = write("salon", tmp_path / "out", pairs)
    found = load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert found.num_rows == len(pairs)
    assert found[0]["image_a"].size == (8, 6)
    assert found[0][f"{MARGIN}VQ"] == pairs[0].margins["VQ"]
    assert "6 preference pairs" in (folder / "README.md").read_text()


@pytest.mark.parametrize(("name", "column"), [("salon", "a"), ("chosen_rejected", "chosen")])
@pytest.mark.parametrize(("medium", "feature"), [("image", "Image"), ("video", "Video")])
def test_parquet_says_which_columns_are_pictures_or_clips(name, column, medium, feature, tmp_path):
    pairs = [pair for pair in some_pairs(3, clips=medium == "video") if pair.choice != "tie"]
    column = f"{medium}_{column}" if name == "salon" else column
    folder = write(name, tmp_path / "out", pairs, medium=medium, renamed={column: "best"})
    schema = pq.read_schema(next(folder.rglob("*.parquet")))
    assert json.loads(schema.metadata[b"huggingface"])["info"]["features"]["best"] == {"_type": feature}
    assert schema.field("best").type.get_field_index("bytes") == 0


def test_hugging_face_opens_chosen_and_rejected_as_pictures_and_pick_a_pic_as_its_own_bytes(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    from datasets import load_dataset

    pairs = some_pairs(1)
    folder = write("chosen_rejected", tmp_path / "out", pairs)
    found = load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert found[0]["chosen"].size == found[0]["rejected"].size == (8, 6)
    # Pick-a-Pic's own files hold plain bytes, and trainers written for it open them themselves.
    folder = write("pickapic", tmp_path / "pickapic", pairs)
    found = load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert found[0]["jpg_0"] == pairs[0].a


def test_a_card_says_names_as_they_are(tmp_path):
    from dataclasses import replace

    pairs = [replace(pair, generator_a="<b>|evil_one|</b>") for pair in some_pairs(2)]
    text = (write("salon", tmp_path / "out", pairs) / "README.md").read_text()
    assert r"&lt;b&gt;\|evil\_one\|&lt;/b&gt;" in text


def test_parquet_is_cut_into_row_groups_that_fit_in_memory(tmp_path):
    found = write("pickapic", tmp_path / "out", some_pairs(6) * 300)
    file = pq.ParquetFile(next(found.rglob("*.parquet")))
    assert file.metadata.num_row_groups == 2


def test_files_are_named_by_what_they_are():
    assert [ending(picture(0, kind)) for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP")] == [
        *(".png", ".jpg", ".webp", ".gif", ".bmp")
    ]
    assert ending(clip(0)) == ".mp4"
    found = measures(clip(0), clip=True)
    assert (found.height, found.width) == (16, 16)


def test_a_ranking_of_hpd_v2_is_every_pair_of_it(tmp_path):
    for number in range(3):
        (tmp_path / "test").mkdir(exist_ok=True)
        (tmp_path / "test" / f"{number}.png").write_bytes(picture(number))
    paths = [f"{number}.png" for number in range(3)]
    entries = [
        {"prompt": "ranked", "image_path": paths, "rank": [2, 1, 2]},
        {"prompt": "chosen", "image_path": paths[:2], "human_preference": [0, 1]},
    ]
    (tmp_path / "test.json").write_text(json.dumps(entries))
    found, wrong = read(tmp_path, format="hpd")
    assert not wrong
    said = [(p.prompt, p.choice, p.a == picture(0)) for p in found]
    assert said == [
        ("ranked", "b", True),
        ("ranked", "tie", True),
        ("ranked", "a", False),
        ("chosen", "b", True),
    ]


def test_votes_of_hpd_v3_are_the_agreement(tmp_path):
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(picture(number))
    entry = {"prompt": "p", "path1": "0.png", "path2": "1.png", "choice_dist": [12, 4], "confidence": 0.99, "model1": "m"}
    (tmp_path / "train.json").write_text(json.dumps([entry, entry | {"choice_dist": [3, 3]}]))
    found, _ = read(tmp_path, format="hpd")
    assert [(p.choice, p.agreement, p.generator_a, p.generator_b) for p in found] == [
        ("a", 0.75, "m", "unknown"),
        ("tie", 0.5, "m", "unknown"),
    ]


def test_a_folder_with_winner_and_loser_needs_no_choice(tmp_path):
    place = tmp_path / "people" / "first"
    place.mkdir(parents=True)
    (place / "winner.jpg").write_bytes(picture(0, "JPEG"))
    (place / "loser.png").write_bytes(picture(1))
    (place / "prompt.txt").write_text("a fox")
    found, wrong = read(tmp_path, format="pair_folder")
    assert not wrong
    assert essence(found) == [("a fox", "a", "unknown", "unknown", picture(0, "JPEG"), picture(1))]


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv"])
def test_chosen_and_rejected_may_be_paths(ending, tmp_path):
    (tmp_path / "media").mkdir()
    for number in range(2):
        (tmp_path / "media" / f"{number}.png").write_bytes(picture(number))
    row = {"prompt": "a fox", "chosen": "media/0.png", "rejected": "./media/1.png"}
    text = {
        ".jsonl": json.dumps(row) + "\n",
        ".json": json.dumps([row], indent=1),
        ".csv": ",".join(row) + "\n" + ",".join(row.values()) + "\n",
    }[ending]
    Path(tmp_path / f"pairs{ending}").write_text(text)
    found, wrong = read(tmp_path, format="chosen_rejected")
    assert not wrong
    assert essence(found) == [("a fox", "a", "unknown", "unknown", picture(0), picture(1))]


def test_a_column_may_have_another_name(tmp_path):
    folder = write("pickapic", tmp_path / "out", some_pairs())
    path = next(folder.rglob("*.parquet"))
    table = pq.read_table(path)
    names = [{"caption": "text", "jpg_0": "first.picture"}.get(name, name) for name in table.column_names]
    pq.write_table(table.rename_columns([name.replace(".", "_") for name in names]), path)
    renamed = {"text": "caption", "first_picture": "jpg_0"}
    found, wrong = read(folder, format="pickapic", renamed=renamed)
    assert not wrong
    assert essence(found) == essence(some_pairs())


@pytest.mark.parametrize(("name", "medium"), [(name, medium) for name, medium in HOLDING if FORMATS[name].columns])
def test_every_column_may_be_written_under_another_name_and_read_from_it(name, medium, tmp_path):
    kind = FORMATS[name]
    pairs = [pair for pair in some_pairs(clips=medium == "video") if kind.ties or pair.choice != "tie"]
    names = {column: f"my {column}" for column in kind.columns if kind.writes(column)}
    names |= {f"{MARGIN}VQ": "quality"} if name == "salon" else {}
    folder = write(name, tmp_path / "out", pairs, medium=medium, renamed=names)
    own = write(name, tmp_path / "own", pairs, medium=medium)
    found, wrong = read(folder, format=name, renamed={theirs: ours for ours, theirs in names.items()})
    said, _ = read(own, format=name)
    assert not wrong and essence(found) == essence(said)
    assert [(p.agreement, p.score, p.margins) for p in found] == [(p.agreement, p.score, p.margins) for p in said]
    assert read(folder, format=name)[0] == []


def test_hugging_face_finds_pictures_under_another_name_and_the_card_names_the_columns(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    from datasets import load_dataset

    names = {"image_a": "left", "prompt": "asked_for", f"{MARGIN}VQ": "quality"}
    folder = write("salon", tmp_path / "out", some_pairs(), renamed=names)
    data = load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert data[0]["left"].size == (8, 6) and data[0]["image_b"].size == (8, 6)
    assert {"asked_for", "quality", f"{MARGIN}TA"} <= set(data.column_names)
    card = (folder / "README.md").read_text()
    assert (
        "| left, image\\_b |" in card
        and "| asked\\_for |" in card
        and "| quality | by how much a is better than b in VQ |" in card
    )
