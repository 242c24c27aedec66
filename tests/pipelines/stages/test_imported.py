"""Imports as stages of a store: what is broken is quarantined with its place, the rest is kept and never read twice."""

import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.executor import RayExecutor
from infra.config import ConfigError
from infra.dag.plan import HIT, CachePolicy, Planner
from infra.dag.run import Runner
from infra.dag.selection import Selection
from infra.dag.shards import RowError
from infra.dag.source import Sources
from infra.dag.stage import Unforeseeable, topological
from infra.store.artifacts import Store
from infra.store.files import Folder
from infra.store.tables import from_table
from pipelines.exchange.formats import FORMATS
from pipelines.exchange.pairs import Layout
from pipelines.recipes.parts.offline import Source
from pipelines.recipes.vipo_image import vipo_image
from pipelines.schemas.samples import Picture
from pipelines.schemas.votes import DimensionMargin, Preference
from pipelines.stages.imported import ImportedClips, ImportedLabels, ImportedPictures, PairFiles
from support.pairs import some_pairs
from tests.benchmarks.quiet import Quiet

COUNT = 9


@pytest.fixture(scope="module")
def executor(ray_session):
    with RayExecutor(workers=2) as made:
        yield made


def labels_of(folder, *, format="pickapic", clips=False):
    source = PairFiles(folder=Folder(path=str(folder)), format=format)
    return ImportedLabels(pictures=(ImportedClips if clips else ImportedPictures)(source=source))


def run(labels, store, executor):
    runner = Runner(store, executor, Quiet(), recipe="import")
    done = runner.run(labels, Selection())
    return {outcome.stage: outcome for outcome in done.values()}


def messages(store, stage):
    found = store.artifact(stage)
    errors = found.record.errors
    return [] if errors is None else [e.message for e in from_table(pq.read_table(found.directory / errors.name), RowError)]


def spoil(folder):
    """A folder of a good file, one with bad rows and one that is cut off."""
    folder.mkdir()
    FORMATS["pickapic"].write(iter(some_pairs(COUNT)), folder, layout=Layout("image"))
    path = folder / "data" / "train-00000.parquet"
    rows, schema = pq.read_table(path).to_pylist(), pq.read_schema(path)
    (path.parent / "cut.parquet").write_bytes(path.read_bytes()[:-9])
    rows[1]["jpg_0"] = rows[1]["jpg_0"][:-40]
    rows[2]["jpg_1"] = b""
    rows[3] |= {"label_0": 7.0}
    rows.append(rows[5])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)


@pytest.fixture(scope="module")
def world(executor, tmp_path_factory):
    """The spoilt folder, imported: folder, store, stage, what the run said."""
    root = tmp_path_factory.mktemp("imported")
    spoil(root / "pairs")
    store, labels = Store(root / "store"), labels_of(root / "pairs")
    return root / "pairs", store, labels, run(labels, store, executor)


def test_what_is_broken_is_an_error_with_file_row_and_reason_and_the_rest_is_there(world):
    _, store, labels, done = world
    name = "data/train-00000.parquet row"
    pictures = messages(store, labels.pictures)
    assert sorted(text[: len(name) + 10] for text in pictures) == [f"{name} 1: jpg_0 ", f"{name} 2: jpg_1 "]
    assert any("does not decode" in text for text in pictures) and any("holds no bytes" in text for text in pictures)
    said = sorted(messages(store, labels))
    assert said[0].startswith("data/cut.parquet: it cannot be read")
    assert said[1].startswith(f"{name} 1: its picture a was not imported")
    assert said[2].startswith(f"{name} 2: its picture b was not imported")
    assert said[3].startswith(f"{name} 3: label_0 7.0")
    assert said[4].startswith(f"{name} {COUNT}: id ")
    assert len(said) == 5
    assert done["import_labels"].rows == COUNT - 3


def test_labels_speak_of_the_pictures_beside_them(world):
    _, store, labels, _ = world
    pairs = {pair.prompt + str(pair.a): pair for pair in some_pairs(COUNT)}
    pictures = {row.id: row for row in store.artifact(labels.pictures).rows(Picture)}
    for row in store.artifact(labels).rows(Preference):
        a, b = pictures[row.picture_a], pictures[row.picture_b]
        pair = pairs[row.text + str(a.image.bytes)]
        assert (row.choice, a.generator, b.generator, b.image.bytes) == (
            pair.choice,
            row.generator_a,
            row.generator_b,
            pair.b,
        )
        assert row.score == {"a": 1.0, "b": -1.0, "tie": 0.0}[row.choice]


def test_importing_again_is_a_hit_wherever_the_folder_lies(world, executor, tmp_path):
    folder, store, _, _ = world
    shutil.copytree(folder, tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "README.md").write_text("prose does not count")
    done = run(labels_of(tmp_path / "elsewhere"), store, executor)
    assert {outcome.state for outcome in done.values()} == {HIT}


def test_another_file_computes_its_own_rows_only(world, executor, tmp_path):
    folder, store, _, before = world
    more = shutil.copytree(folder, tmp_path / "more")
    FORMATS["pickapic"].write(iter(some_pairs(COUNT + 3)[COUNT:]), more / "new", layout=Layout("image"))
    # Each written folder counts its rankings from 0; here they are others.
    path = more / "new" / "data" / "train-00000.parquet"
    table = pq.read_table(path)
    changed = pa.array([1000 + n for n in range(3)], pa.int64())
    pq.write_table(table.set_column(table.column_names.index("ranking_id"), "ranking_id", changed), path)
    after = run(labels_of(more), store, executor)
    assert after["import"].reused_rows == before["import"].rows
    assert after["import"].rows == before["import"].rows + 6
    assert after["import_labels"].rows == before["import_labels"].rows + 3


def test_a_recipe_takes_an_import_as_it_is(world):
    folder, store, _, _ = world
    target = vipo_image(source=Source(pairs=str(folder), pairs_format="pickapic"))
    planner = Planner(store=store, policy=CachePolicy(), sources=Sources(store.root / "cache" / "source.json"))
    labels = next(stage for stage in topological(target) if stage.name == "import_labels")
    assert [planner.plan(stage).state for stage in (labels.pictures, labels)] == [HIT, HIT]


def test_margins_by_dimension_are_beside_the_labels(executor, tmp_path):
    pairs = some_pairs(3, clips=True)
    (tmp_path / "clips").mkdir()
    FORMATS["videoalign"].write(iter(pairs), tmp_path / "clips", layout=Layout("video"))
    store, labels = Store(tmp_path / "store"), labels_of(tmp_path / "clips", format="videoalign", clips=True)
    run(labels, store, executor)
    text = {row.id: row.choice for row in store.artifact(labels).rows(Preference)}
    margins = list(store.artifact(labels).rows(DimensionMargin, name="dimensions"))
    assert {m.dimension for m in margins} == {"VQ", "TA"}
    sign = {"a": 1.0, "tie": -1.0, "b": 0.0}
    assert {(text[m.pair_id], m.margin) for m in margins if m.dimension == "VQ"} == {(c, sign[c]) for c in text.values()}


def test_the_key_is_of_the_contents_the_format_and_the_names(tmp_path):
    for name in ("one", "other"):
        spoil(tmp_path / name)
    base = labels_of(tmp_path / "one").key
    assert labels_of(tmp_path / "other").key == base
    assert labels_of(tmp_path / "one", format="salon").key != base
    renamed = PairFiles(folder=Folder(path=str(tmp_path / "one")), format="pickapic", renamed={"x": "caption"})
    assert ImportedLabels(pictures=ImportedPictures(source=renamed)).key != base
    (tmp_path / "other" / "more.parquet").write_bytes(b"x")
    assert labels_of(tmp_path / "other").key != base


def test_without_a_folder_a_plan_counts_what_is_expected_and_a_wrong_folder_is_refused():
    labels = ImportedLabels(pictures=ImportedPictures(source=PairFiles(expected=10)))
    assert (labels.expected_rows(None), labels.pictures.expected_rows(None)) == (10, 20)
    with pytest.raises(Unforeseeable, match="--pairs"):
        labels.pictures.cells(None)
    with pytest.raises(ConfigError, match="no such folder"):
        labels_of("nowhere").key  # noqa: B018
