"""The trainer in one process: schedules, batches, exact resume, the engines' agreement, losses that are no number."""

import os
from pathlib import Path

import numpy as np
import pytest

from actors.engines.training import EngineOptions
from actors.trainer import Training, read_curve, train
from infra.config import ConfigError
from infra.fit import Halt, LocalSession, here
from pipelines.models.policy import Full
from support.training import Line, column, line_options, training, write_world

TORCH = EngineOptions(kind="torch")
CLOSE = {"loss": 1e-4, "winner_error": 1e-4, "loser_error": 1e-4, "drift": 1e-4, "learning_rate": 0.0}


def curve(job: Training, folder: Path) -> list[dict]:
    return read_curve(here(train, job, folder=folder, on_report=None))


def test_a_line_is_learnt_and_exported(tmp_path):
    checkpoint = here(train, Training(Line(), line_options(steps=120)), folder=tmp_path, on_report=None)
    assert float((checkpoint / "export" / "weight").read_text()) == pytest.approx(3, abs=0.05)
    assert [row["step"] for row in read_curve(checkpoint)] == list(range(1, 121))


def test_the_rate_rises_and_falls_as_the_schedule_says():
    options = line_options(steps=105, learning_rate=1.0, warm_up=5, schedule="cosine", floor=0.2)
    rates = [options.learning_rate_at(step) for step in (0, 4, 5, 55, 105)]
    assert rates == pytest.approx([0.2, 1.0, 1.0, 0.6, 0.2])


def test_an_epoch_shows_every_example_once_and_draws_have_their_own_seeds():
    options = line_options(batch=5)
    first, second = options.draws(0, size=5), options.draws(1, size=5)
    assert sorted(draw.index for draw in first) == sorted(draw.index for draw in second) == list(range(5))
    assert len({draw.seed for draw in first + second}) == 10
    assert options.draws(1, size=5) == second


def test_a_run_stopped_at_a_checkpoint_goes_on_exactly(tmp_path):
    whole = curve(Training(Line(), line_options(checkpoint_every=7)), tmp_path / "whole")

    class Killed(RuntimeError):
        pass

    def kill(metrics):
        if metrics["step"] == 33:
            raise Killed

    job = Training(Line(), line_options(checkpoint_every=7))
    with pytest.raises(Killed):
        here(train, job, folder=tmp_path / "halves", on_report=kill)
    assert len(read_curve(LocalSession(tmp_path / "halves").checkpoint())) == 28
    assert curve(job, tmp_path / "halves") == whole


def test_a_finished_run_does_nothing_more(tmp_path):
    job = Training(Line(), line_options())
    first = here(train, job, folder=tmp_path, on_report=None)
    seen: list[dict] = []
    assert here(train, job, folder=tmp_path, on_report=seen.append) == first
    assert seen == []


def test_a_loss_that_is_no_number_stops_and_names_step_and_rows(tmp_path):
    with pytest.raises(Halt, match=r"loss of step \d+ is not a finite number, on row-3; .*learning rate"):
        curve(Training(Line(poison=3), line_options()), tmp_path)


def test_more_workers_than_rows_in_a_batch_are_refused(tmp_path):
    session = LocalSession(tmp_path)
    session.world = 8
    with pytest.raises(ConfigError, match="batch = 4 is less than 8 workers"):
        train(Training(Line(), line_options()), session)


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_every_engine_with_and_without_resume_is_plain_torch(tmp_path, adapter):
    write_world(tmp_path)
    chosen = {"adapter": Full()} if adapter == "full" else {}
    chosen["learning_rate"] = 1e-4 if adapter == "full" else 1e-3
    plain = curve(training(tmp_path, engine=TORCH, **chosen), tmp_path / "plain")
    # Six steps at once, three backward passes each; and three steps, then another engine's three.
    small = curve(training(tmp_path, engine=TORCH, micro_batch=3, **chosen), tmp_path / "small")
    found = {"micro batches": small}
    for zero in (1, 2, 3):
        engine = EngineOptions(zero=zero)
        folder = tmp_path / f"zero{zero}"
        curve(training(tmp_path, engine=engine, steps=3, **chosen), folder)
        found[f"zero {zero}"] = curve(training(tmp_path, engine=engine, micro_batch=5, **chosen), folder)
    for name, other in found.items():
        for metric, tolerance in CLOSE.items():
            np.testing.assert_allclose(column(other, metric), column(plain, metric), atol=tolerance, err_msg=name)


def test_a_checkpoint_of_one_engine_is_continued_by_another(tmp_path):
    write_world(tmp_path)
    plain = curve(training(tmp_path, engine=TORCH), tmp_path / "plain")
    curve(training(tmp_path, engine=EngineOptions(zero=3), steps=2), tmp_path / "mixed")
    curve(training(tmp_path, engine=TORCH, steps=4), tmp_path / "mixed")
    mixed = curve(training(tmp_path, engine=EngineOptions(zero=1)), tmp_path / "mixed")
    np.testing.assert_allclose(column(mixed), column(plain), atol=1e-4)


def test_checkpoints_appear_whole_and_only_two_are_kept(tmp_path):
    curve(Training(Line(), line_options(checkpoint_every=10)), tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["checkpoint_000005", "checkpoint_000006"]
