"""Training on examples that are collected in rounds: when they are made, where a run is saved, how it goes on."""

import itertools
from pathlib import Path

import pytest

from actors.training.launch import LocalSession, here
from actors.training.trainer import Training, ended_early, read_curve, train
from infra.config import ConfigError
from support.line import Rounds, line_options

OPTIONS = {"steps": 24, "batch": 4, "checkpoint_every": 12}


def run(objective: Rounds, folder: Path, *, on_report=None, **options) -> Path:
    return here(train, Training(objective, line_options(**OPTIONS | options)), folder=folder, on_report=on_report)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> list[dict]:
    return read_curve(run(Rounds(), tmp_path_factory.mktemp("whole")))


def test_every_round_is_collected_once_with_the_weights_that_it_begins_with(tmp_path):
    job = Rounds()
    curve = read_curve(run(job, tmp_path))
    assert job.made == [0, 1, 2, 3]
    begun = [row["begun_at"] for row in curve if "begun_at" in row]
    assert [row["step"] for row in curve if "begun_at" in row] == [1, 7, 13, 19]
    assert all(later > earlier for earlier, later in itertools.pairwise(begun))


def test_nothing_of_a_round_is_read_before_it_was_collected(tmp_path):
    class Watched(Rounds):
        def prefetch(self, draws):
            super().prefetch(draws)
            assert (len(self.read) - 1) // self.round == self.made[-1]

    job = Watched()
    run(job, tmp_path)
    assert job.read == job.drawn


def test_a_batch_is_of_one_round_and_a_pass_over_it_has_every_example_once(tmp_path):
    job = Rounds(round=4)
    run(job, tmp_path, checkpoint_every=4)
    for first in range(0, 24, 2):
        assert sorted(draw.index for part in job.drawn[first : first + 2] for draw in part) == list(range(8))


@pytest.mark.parametrize("killed", [1, 5, 6, 7, 11, 12, 13, 18, 23])
def test_a_run_killed_at_any_step_goes_on_as_if_it_had_not_been(tmp_path, whole, killed):
    class Killed(RuntimeError):
        pass

    def kill(metrics):
        if metrics["step"] == killed:
            raise Killed

    with pytest.raises(Killed):
        run(Rounds(), tmp_path, on_report=kill)
    kept = LocalSession(tmp_path).checkpoint()
    assert len(read_curve(kept)) == (killed - 1) // 12 * 12
    job = Rounds()
    assert read_curve(run(job, tmp_path)) == whole
    assert job.made == list(range((killed - 1) // 12 * 2, 4))


def test_an_objective_ends_the_training_at_a_border_with_an_export(tmp_path):
    job = Rounds(last=3)
    checkpoint = run(job, tmp_path)
    assert len(read_curve(checkpoint)) == 18
    assert ended_early(checkpoint) == "round 3 was the last"
    assert (checkpoint / "export" / "weight").exists()
    assert run(job, tmp_path) == checkpoint
    assert job.made == [0, 1, 2]


def test_a_run_to_its_last_step_has_not_ended_early(tmp_path):
    assert ended_early(run(Rounds(), tmp_path)) is None


@pytest.mark.parametrize(
    ("objective", "options", "told"),
    [
        (Rounds(), {"checkpoint_every": 8}, "checkpoint_every = 8 is no multiple of the 6 steps per round.*give 12"),
        (Rounds(), {"steps": 20}, "steps = 20 is no multiple of the 6 steps per round.*give 24"),
        (Rounds(), {"batch": 3}, "8 examples are no multiple of batch = 3"),
        (Rounds(round=3), {"checkpoint_every": 3}, r"3 steps per round of batch = 4 are 1.50 passes.*multiple of 2"),
        (Rounds(shapes=[0, 1] * 4), {}, "have several shapes"),
    ],
)
def test_runs_that_would_be_cut_within_a_round_are_refused(tmp_path, objective, options, told):
    with pytest.raises(ConfigError, match=told):
        run(objective, tmp_path, **options)
