"""A reader of rows by id keeps the files that it needs."""

from dataclasses import dataclass

import pytest

from infra.store import artifacts
from infra.store.artifacts import RowReader
from infra.store.tables import to_table, write_table


@dataclass(frozen=True)
class Word:
    id: str
    text: str


@pytest.fixture
def twelve_files(tmp_path):
    rows = [[Word(f"{file:02d}-{row}", "x" * 1000) for row in range(10)] for file in range(12)]
    return tmp_path, tuple(
        write_table(to_table(part, Word), tmp_path / f"part-{k:05d}.parquet") for k, part in enumerate(rows)
    )


def reads_of(reader, monkeypatch, rounds):
    read = []
    real = artifacts.read_verified
    monkeypatch.setattr(artifacts, "read_verified", lambda path, *rest: read.append(path.name) or real(path, *rest))
    for row in range(rounds):
        names = [f"{file:02d}-{row}" for file in range(12)]
        assert reader.take(names, ["text"])["id"].to_pylist() == names
    return read


def test_going_round_twelve_files_reads_each_once(twelve_files, monkeypatch):
    directory, files = twelve_files
    read = reads_of(RowReader(directory, files, Word), monkeypatch, rounds=5)
    assert sorted(read) == [f"part-{k:05d}.parquet" for k in range(12)]


def test_what_a_call_needs_is_kept_whatever_the_budget_and_the_rest_is_let_go(twelve_files, monkeypatch):
    directory, files = twelve_files
    reader = RowReader(directory, files, Word, budget=1)
    assert len(reads_of(reader, monkeypatch, rounds=3)) == 12, "one call needs twelve files, so twelve are kept"
    reader.take(["00-1"], ["text"])
    assert len(reader._cache) == 1
