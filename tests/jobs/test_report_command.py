"""`salon report`: the newest run's page, its hash checked, and a remedy where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infra.config import ConfigError
from infra.store.record import Record
from infra.store.tables import FileRecord, sha256_of
from jobs.report import main


def add_run(root: Path, name: str, *, started: str, page: str | None) -> Path:
    """A run; with a page, its report's artifact too."""
    key = f"{name:0<24}"
    directory = root / "artifacts" / "report" / key
    stages = []
    if page is not None:
        path = directory / "weights" / "report.html"
        path.parent.mkdir(parents=True)
        path.write_text(page)
        weights = [FileRecord("report.html", path.stat().st_size, sha256_of(path), 0)]
        Record("report", 1, key, {}, {}, [], {}, weights, None, 1, 0, 1, 0, 0.1, started, {}, {}, "").write(directory)
        stages = [{"node": "report", "stage": "report", "key": key}]
    (root / "runs").mkdir(exist_ok=True)
    run = {"name": name, "recipe": "miniature", "started": started, "status": "done", "stages": stages}
    (root / "runs" / f"{name}.json").write_text(json.dumps(run))
    return directory / "weights" / "report.html"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    store = tmp_path / "store"
    store.mkdir()
    add_run(store, "older", started="2026-01-01", page="old page")
    add_run(store, "newer", started="2026-01-02", page="new page")
    add_run(store, "newest", started="2026-01-03", page=None)
    return store


def test_the_newest_report_is_found(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(root)]) == 0
    assert Path(capsys.readouterr().out.strip()).read_text() == "new page"


def test_a_named_run_is_copied(root: Path, tmp_path: Path) -> None:
    assert main(["--root", str(root), "--run", "older", "--output", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").read_text() == "old page"


def test_one_flipped_byte_is_found(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = add_run(root, "last", started="2026-01-04", page="last page")
    path.write_text("lost page")
    assert main(["--root", str(root)]) == 1
    assert "damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [(["--run", "newest"], "salon run miniature"), (["--run", "nobody"], "newest first:\n  newest\n  newer\n  older")],
)
def test_where_there_is_none_the_remedy_is_named(root: Path, arguments: list[str], remedy: str) -> None:
    with pytest.raises(ConfigError, match=remedy):
        main(["--root", str(root), *arguments])


def test_an_empty_store_and_a_missing_folder_are_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="start a run with salon run"):
        main(["--root", str(tmp_path / "nothing")])
    with pytest.raises(ConfigError, match="folder that exists"):
        main(["--root", str(root), "--output", str(tmp_path / "no" / "page.html")])
