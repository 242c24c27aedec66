"""`salon export`: the pairs of a run in any format and back; `test_miniature` exports those of a jury."""

import pytest

from pipelines.exchange.formats import FORMATS
from pipelines.exchange.pairs import Layout
from support.pairs import essence, read, some_pairs, winner_first

PICTURES = [name for name, kind in FORMATS.items() if "image" in kind.holds]


@pytest.fixture(scope="module")
def imported(ray_session, tmp_path_factory):
    """A store with an import of pictures, `pictures`, and one of clips, `clips`."""
    from jobs.cli import main

    root = tmp_path_factory.mktemp("export")
    for name, clips in (("pictures", False), ("clips", True)):
        (root / name).mkdir()
        medium = "video" if clips else "image"
        FORMATS["salon"].write(
            iter(some_pairs(9, clips=clips)), root / name, layout=Layout(medium, ["TA", "VQ"], subsets=True)
        )
        words = ["import", "salon", str(root / name), "--root", str(root / "store"), "--run-name", name]
        assert main(words) == 0
    return root / "store"


@pytest.mark.parametrize("name", PICTURES)
def test_imported_pairs_come_out_in_every_format(name, salon, imported, tmp_path):
    status, out, _ = salon("export", name, tmp_path / "out", "--run", "pictures", "--root", imported)
    assert status == 0
    kind = FORMATS[name]
    pairs = [pair for pair in some_pairs(9) if kind.ties or pair.choice != "tie"]
    assert f"{len(pairs)} pairs written" in out
    assert ("3 ties left out" in out) == (not kind.ties)
    found, wrong = read(tmp_path / "out", format=name)
    assert not wrong
    assert essence(found) == essence(pairs if kind.ties else [winner_first(pair) for pair in pairs])


@pytest.mark.parametrize("name", ["salon", "videoalign"])
def test_clips_and_margins_come_out(name, salon, imported, tmp_path):
    assert salon("export", name, tmp_path / "out", "--run", "clips", "--root", imported)[0] == 0
    found, _ = read(tmp_path / "out", format=name)
    pairs = some_pairs(9, clips=True)
    assert essence(found) == essence(pairs)
    assert {p.a: p.margins for p in found} == {p.a: p.margins for p in pairs}
    if name == "salon":
        assert {p.a: p.subset for p in found} == {p.a: p.subset for p in pairs}


def test_columns_under_other_names_are_imported_from_them(salon, imported, tmp_path):
    words = ["--map", "caption=text", "jpg_0=first", "--run", "pictures", "--root", imported]
    assert salon("export", "pickapic", tmp_path / "out", *words)[0] == 0
    status, out, _ = salon(
        "import", "pickapic", tmp_path / "out", "--map", "text=caption", "first=jpg_0", "--root", tmp_path / "store"
    )
    assert status == 0 and "9 of 9 pairs imported" in out


def test_a_whole_run_that_trained_nothing_is_its_pairs_and_a_card(salon, imported, tmp_path):
    status, out, _ = salon("export", "run", tmp_path / "out", "--run", "clips", "--root", imported)
    assert status == 0 and "`pairs/`: 9 judged pairs of clips" in out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["README.md", "pairs"]
    found, wrong = read(tmp_path / "out" / "pairs", format="salon")
    assert not wrong and essence(found) == essence(some_pairs(9, clips=True))


def test_the_newest_run_with_labels_is_the_default(salon, imported, tmp_path):
    assert salon("export", "videoalign", tmp_path / "out", "--root", imported)[0] == 0


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["pick", "out"], "did you mean pickapic?"),
        (["pickapic", "out", "--run", "nothing"], "no run 'nothing'"),
        (["pickapic", "out", "--run", "pictures", "--labels", "label"], "it has import_labels"),
        (["pickapic", "out", "--run", "clips"], "this run has videos"),
        (["videoalign", "out", "--run", "pictures"], "this run has images"),
        (["pickapic", "full", "--run", "pictures"], "is there already"),
        (["pickapic", "out", "--run", "pictures", "--map", "captoin=text"], "did you mean caption?"),
        (["run", "out", "--run", "pictures", "--map", "a=b"], "--map is about the pairs in one format"),
        (["run", "out", "--run", "pictures", "--labels", "label"], "--labels is about the pairs in one format"),
        (["run", "full", "--run", "pictures"], "is there already"),
        (["run", "out", "--run", "nothing"], "no run 'nothing'"),
    ],
)
def test_bad_input_is_status_2_and_writes_nothing(words, reason, salon, imported, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("x")
    status, _, message = salon("export", *words, "--root", imported)
    assert (status, reason in message) == (2, True), message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full"]


def test_a_store_without_a_run_is_said_to_be_one(salon, tmp_path):
    status, _, message = salon("export", "salon", tmp_path / "out", "--root", tmp_path / "store")
    assert (status, "holds no run" in message) == (2, True)
