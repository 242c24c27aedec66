"""Views over hand-made runs, computed in this process: pictures, side tables, several nodes, damage, what may be read."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import duckdb
import pytest
from PIL import Image as PillowImage

from infra.config import ConfigError
from infra.dag.run import Runner
from infra.dag.selection import Selection
from infra.dag.stage import Context, Stage, TableStage
from infra.store.artifacts import Store
from infra.store.runs import read_runs, run_named
from infra.store.tables import Image
from infra.store.views import Database


@dataclass(frozen=True)
class Drawing:
    """A picture and its colour."""

    id: str
    red: int
    image: Image


@dataclass(frozen=True)
class Palette:
    """A shade that was used."""

    shade: str


class Draw(TableStage):
    """Red squares."""

    name: ClassVar = "draw"
    row: ClassVar = Drawing
    tables: ClassVar = {"palettes": Palette}
    count: int

    def run(self, context: Context) -> Iterator[Drawing]:
        context.emit("palettes", [Palette(f"red {n}") for n in range(self.count)])
        for red in range(self.count):
            out = io.BytesIO()
            PillowImage.new("RGB", (2, 2), (red, 0, 0)).save(out, "PNG")
            yield Drawing(f"d'{red}", red, Image(out.getvalue()))


class Gather(TableStage):
    """Two nodes of one stage as parents; no rows."""

    name: ClassVar = "gather"
    row: ClassVar = Palette
    draws: tuple[Draw, ...]

    def run(self, context: Context) -> Iterator[Palette]:
        del context
        yield from ()


class Here:
    """An executor that is this process."""

    def connected(self):
        return nullcontext()

    def make_room(self, resources):
        pass

    def room_beside(self, resources, others):
        return False

    def call(self, function, *arguments, poll):
        return function(*arguments)

    def shards(self, stage, directory, worker, todo, *, places, logs, cancelled):
        raise AssertionError("no row-wise stage here")


class Silent:
    """Progress nobody hears."""

    def planned(self, plan):
        pass

    def advanced(self, node, done, total, note):
        pass

    def finished(self, node, record):
        pass

    def said(self, line):
        pass

    def log_to(self, write):
        pass


def run(root: Path, target: Stage, name: str) -> None:
    Runner(Store(root), Here(), Silent(), recipe="drawings", name=name).run(target, Selection())


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "it's a store"
    run(folder, Gather(draws=(Draw(count=2),)), "first")
    run(folder, Gather(draws=(Draw(count=0),)), "nothing-drawn")
    run(folder, Gather(draws=(Draw(count=2, label="few"), Draw(count=3, label="many"))), "several")
    return folder


def ask(root: Path, sql: str, *, name: str | None = None, unioned: bool = False) -> list[tuple]:
    store = Store(root)
    runs = read_runs(store).readable if unioned else [run_named(store, name)]
    return list(Database(store, runs, unioned=unioned).query(sql)[1])


def columns(root: Path, view: str, **options) -> list[str]:
    return [row[0] for row in ask(root, f"DESCRIBE {view}", **options)]


def test_the_newest_run_answers_unless_another_is_named(root):
    assert ask(root, "SELECT count(*) FROM draw") == [(5,)]
    assert ask(root, "SELECT id FROM draw ORDER BY id", name="first") == [("d'0",), ("d'1",)]


def test_pictures_are_in_media_views_only(root):
    assert columns(root, "draw", name="first") == ["id", "red"]
    assert columns(root, "draw_media", name="first") == ["id", "red", "image"]
    assert ask(root, "SELECT image.bytes[1:4] FROM draw_media LIMIT 1", name="first")[0][0][1:] == b"PNG"


def test_side_tables_and_empty_stages_are_typed_views(root):
    assert ask(root, "SELECT * FROM draw_palettes", name="first") == [("red 0",), ("red 1",)]
    for view in ("draw", "draw_palettes", "draw_errors", "gather"):
        assert ask(root, f"SELECT count(*) FROM {view}", name="nothing-drawn") == [(0,)]
    assert ask(root, "DESCRIBE draw", name="nothing-drawn")[1][:2] == ("red", "BIGINT")
    assert columns(root, "draw_errors") == ["node", "id", "shard", "type", "message", "traceback", "attempts"]


def test_several_nodes_of_a_stage_are_told_apart_by_a_column(root):
    counts = ask(root, "SELECT node, count(*) FROM draw GROUP BY node ORDER BY node")
    assert counts == [("draw[few]", 2), ("draw[many]", 3)]
    assert "node" in columns(root, "draw_palettes")


def test_unioned_views_have_a_run_column(root):
    counts = ask(root, "SELECT run, count(*) FROM draw GROUP BY run ORDER BY run", unioned=True)
    assert counts == [("first", 2), ("several", 5)]


def test_lineage_is_a_join(root):
    sql = """SELECT p.parent_stage, a.rows FROM run_stages r JOIN artifact_parents p USING (stage, key)
             JOIN artifacts a ON (a.stage, a.key) = (p.parent_stage, p.parent_key) WHERE r.run = 'first'"""
    assert ask(root, sql) == [("draw", 2)]
    assert ask(root, "SELECT run, status FROM runs WHERE recipe = 'drawings' ORDER BY started LIMIT 1") == [
        ("first", "done")
    ]


def test_a_damaged_file_is_told_to_whoever_asks_for_it(root):
    for path in (root / "artifacts").glob("draw/*/part-00000.parquet"):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ConfigError, match=r"draw is damaged: .*part-00000.parquet has .* were written; salon run"):
        ask(root, "SELECT * FROM draw")
    assert ask(root, "SELECT count(*) FROM draw_palettes", name="first") == [(2,)]


def test_an_artifact_that_is_gone_is_named(root):
    for path in (root / "artifacts").glob("draw/*/artifact.json"):
        path.unlink()
    with pytest.raises(ConfigError, match=r"draw is not there: .*salon run makes it anew"):
        ask(root, "SELECT * FROM draw", name="first")


@pytest.mark.parametrize(
    "sql",
    [
        "COPY (SELECT 1) TO '{file}'",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{file}'",
        "CREATE TABLE x AS SELECT 1",
        "SET enable_external_access = true",
        "SELECT 1; SELECT 2",
        "ATTACH '{other}'",
        "SELECT * FROM read_text('{other}')",
        "SELECT * FROM '{other}'",
        "SELECT * FROM glob('{other}*')",
        "INSTALL httpfs",
        "",
    ],
)
def test_a_query_reads_the_datasets_and_nothing_else(root, sql):
    file = next((root / "artifacts").glob("draw/*/part-00000.parquet"))
    before = file.read_bytes()
    other = root.parent / "other.txt"
    other.write_text("secret")
    literals = {"file": str(file).replace("'", "''"), "other": str(other).replace("'", "''")}
    with pytest.raises(ConfigError):
        ask(root, sql.format(**literals))
    assert file.read_bytes() == before


def test_a_plain_client_reads_the_same_files(root):
    paths = [str(path) for path in (root / "artifacts").glob("draw/*/part-*.parquet")]
    assert duckdb.connect().execute("SELECT count(*) FROM read_parquet(?)", [paths]).fetchall() == [(5,)]
