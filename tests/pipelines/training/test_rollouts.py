"""Rollouts on disk: what is read is what was written, whoever wrote it; damage is seen; old tensors go."""

from dataclasses import replace

import pytest
import torch

from infra.config import ConfigError
from pipelines.schemas.training import RolloutState
from pipelines.training.rollouts import RolloutFiles, RolloutPart, valued


def state(name: str, number: int = 0) -> RolloutState:
    numbers = {"score": [0.1, float("nan")], "value": [0.0, 0.0], "old": [1.0, 2.0], "reference": []}
    return RolloutState(name, number, "text", start=0, step=3, t=0.5, t_next=0.4, used=False, **numbers)


def part(names: str, number: int = 0) -> RolloutPart:
    tensors = [{"x": torch.full((1, 2, 2), float(ord(name))), "of": torch.tensor([0, 0])} for name in names]
    return RolloutPart([state(name, number) for name in names], tensors, {"seconds": 1.5})


@pytest.fixture
def files(tmp_path) -> RolloutFiles:
    return RolloutFiles(tmp_path)


def test_a_round_is_the_same_whatever_the_number_of_workers_that_made_it(files, tmp_path):
    files.write(3, part("ca", 3), rank=0, world=2)
    assert files.read(3) is None
    files.write(3, part("b", 3), rank=1, world=2)
    found = files.read(3)
    alone = RolloutFiles(tmp_path / "alone")
    alone.write(3, part("abc", 3), rank=0, world=1)
    assert [one.id for one in found.states] == ["a", "b", "c"]
    assert found.packed == alone.read(3).packed
    assert found.tensors(1)["x"].unique().item() == ord("b")
    assert [note["seconds"] for note in found.notes] == [1.5, 1.5]


def test_parts_of_different_numbers_of_workers_are_not_mixed(files):
    files.write(0, part("a"), rank=0, world=2)
    files.write(0, part("xyz"), rank=0, world=1)
    assert [one.id for one in files.read(0).states] == ["x", "y", "z"]


@pytest.mark.parametrize("where", [0, 0.3, 0.6, "end"])
def test_a_damaged_part_is_seen_and_named(files, caplog, where):
    files.write(0, part("abcdefgh"), rank=0, world=1)
    path = files.folder / "000000" / "part-00000-of-00001.parquet"
    data = bytearray(path.read_bytes())
    if where == "end":
        data = data[:-20]
    else:
        place = 10 + int(where * len(data) / 2)
        data[place : place + 8] = bytes(255 - value for value in data[place : place + 8])
    path.write_bytes(data)
    assert files.read(0) is None
    assert str(path) in caplog.text
    assert "damaged" in caplog.text


def test_tensors_of_the_last_two_rounds_stay_and_the_numbers_of_all(files):
    for number in range(4):
        files.write(number, part("ab", number), rank=0, world=1)
        files.settle(number, valued(files.read(number).states, [[1, -1], [0, 0]], [True, False]))
    assert [number for number in range(4) if files.read(number)] == [2, 3]
    rows = files.numbers(rounds=4)
    assert [(row.round, row.id, row.used) for row in rows] == [
        (number, name, name == "a") for number in range(4) for name in "ab"
    ]
    assert replace(rows[0], score=[]) == replace(state("a"), value=[1.0, -1.0], used=True, score=[])


def test_numbers_that_are_gone_are_an_error_with_the_remedy(files):
    with pytest.raises(ConfigError, match=r"numbers of rollout round 0, cannot be read .* run the same command again"):
        files.numbers(rounds=1)
