"""The trainer in one process: a line is learnt, previews, averages, reading ahead, losses that are no number."""

import json
import os
from pathlib import Path

import pytest
import torch

from actors.training.launch import Halt, LocalSession, here
from actors.training.trainer import PREVIEWS, TRACKED, Training, read_curve, train
from infra.config import ConfigError
from infra.identity import seed_of
from support.line import Line, line_options


def run(objective: Line, folder: Path, **options) -> Path:
    return here(train, Training(objective, line_options(**options)), folder=folder, on_report=None)


def exported(checkpoint: Path) -> float:
    return float((checkpoint / "export" / "weight").read_text())


def test_a_line_is_learnt_and_exported(tmp_path):
    checkpoint = run(Line(), tmp_path, steps=120)
    assert exported(checkpoint) == pytest.approx(3, abs=0.05)
    assert [row["step"] for row in read_curve(checkpoint)] == list(range(1, 121))


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.2, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.2, 1.0, 1.0, 0.6, 0.2]),
        ("cosine", [0.2, 1.0, 1.0, 0.6, 0.2]),
        ("polynomial", [0.2, 1.0, 1.0, 0.2 + 0.8 * 0.5**3, 0.2]),
    ],
)
def test_the_rate_rises_and_falls_as_the_schedule_says(schedule, expected):
    options = line_options(steps=105, learning_rate=1.0, warm_up=5, schedule=schedule, floor=0.2, power=3.0)
    assert [options.learning_rate_at(step) for step in (0, 4, 5, 55, 105)] == pytest.approx(expected)


def test_the_average_is_the_sum_of_its_definition(tmp_path):
    weights = [run(Line(), tmp_path / str(steps), steps=steps) for steps in range(1, 9)]
    decay, average = 0.7, _first_weight()
    for checkpoint in weights:
        average = decay * average + (1 - decay) * exported(checkpoint)
    checkpoint = run(Line(), tmp_path / "average", steps=8, ema=decay)
    assert exported(checkpoint) == pytest.approx(average, rel=1e-5)
    assert [row["loss"] for row in read_curve(checkpoint)] == [row["loss"] for row in read_curve(weights[-1])]


def _first_weight() -> float:
    torch.manual_seed(seed_of(0, "model"))
    return float(torch.nn.Linear(1, 1, bias=False).weight.detach())


def test_a_mean_is_over_the_examples_that_have_the_number_and_none_where_no_example_has_it(tmp_path):
    job = Line()
    curve = read_curve(run(job, tmp_path, steps=20, batch=2, micro_batch=1))
    seen = []
    for step, row in enumerate(curve):
        odd = [draw.index for part in job.drawn[2 * step : 2 * step + 2] for draw in part if draw.index % 2]
        seen.append(len(odd))
        assert row["odd"] == (pytest.approx(sum(odd) / len(odd)) if odd else None)
    assert {0, 1, 2} == set(seen)


def test_means_of_the_whole_batch_are_known_to_every_pass_and_change_no_random_number(tmp_path):
    plain = read_curve(run(Line(), tmp_path / "plain", steps=10))
    for micro_batch in (4, 1):
        found = read_curve(run(Line(centred=True), tmp_path / str(micro_batch), steps=10, micro_batch=micro_batch))
        assert [row["centred"] for row in found] == pytest.approx([0.0] * 10, abs=1e-6)
        if micro_batch == 4:
            assert [row["chance"] for row in found] == [row["chance"] for row in plain]


def test_every_step_is_read_once_before_it_is_computed(tmp_path):
    job = Line()
    run(job, tmp_path, steps=12)
    assert job.read == job.drawn
    assert job.read == [line_options().draws(step, size=5) for step in range(12)]


def test_what_cannot_be_read_ends_the_training(tmp_path):
    class Unreadable(Line):
        def prefetch(self, draws):
            super().prefetch(draws)
            if len(self.read) == 5:
                raise OSError("row-3 is gone")

    job = Unreadable()
    with pytest.raises(OSError, match="row-3 is gone"):
        run(job, tmp_path)
    assert len(job.drawn) == 4


def test_previews_come_every_so_often_are_shown_and_change_nothing(tmp_path):
    plain = read_curve(run(Line(), tmp_path / "plain", steps=10))
    checkpoint = run(Line(), tmp_path / "shown", steps=10, preview_every=4)
    assert read_curve(checkpoint) == plain
    folder = tmp_path / "shown" / PREVIEWS
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png")) == [
        "000004/red.png",
        "000008/red.png",
    ]
    lines = [json.loads(line) for line in (tmp_path / "shown" / TRACKED / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "pictures" in line] == [4, 8]


def test_a_run_stopped_at_a_checkpoint_goes_on_exactly(tmp_path):
    options = line_options(checkpoint_every=7, ema=0.9, schedule="cosine")

    class Killed(RuntimeError):
        pass

    def kill(metrics):
        if metrics["step"] == 33:
            raise Killed

    whole = here(train, Training(Line(shapes=[0, 0, 1, 1, 1]), options), folder=tmp_path / "whole", on_report=None)
    job = Training(Line(shapes=[0, 0, 1, 1, 1]), options)
    with pytest.raises(Killed):
        here(train, job, folder=tmp_path / "halves", on_report=kill)
    assert len(read_curve(LocalSession(tmp_path / "halves").checkpoint())) == 28
    halves = here(train, job, folder=tmp_path / "halves", on_report=None)
    assert read_curve(halves) == read_curve(whole)
    assert exported(halves) == exported(whole)
    lines = (tmp_path / "halves" / TRACKED / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 61))


def test_a_finished_run_does_nothing_more(tmp_path):
    job = Training(Line(), line_options())
    first = here(train, job, folder=tmp_path, on_report=None)
    seen: list[dict] = []
    assert here(train, job, folder=tmp_path, on_report=seen.append) == first
    assert seen == []


def test_a_loss_that_is_no_number_stops_and_names_step_rows_and_the_last_good_checkpoint(tmp_path):
    options = line_options(batch=1, checkpoint_every=1)
    with pytest.raises(Halt, match=r"loss of step \d+ is not a finite number, on row-3; .*learning rate.*checkpoint_"):
        here(train, Training(Line(poison=3), options), folder=tmp_path, on_report=None)
    halted = json.loads((tmp_path / "halted.json").read_text())
    assert halted["not_finite"] == halted["batch"] == ["row-3"]
    assert halted["what"] == "loss"
    good = read_curve(Path(halted["checkpoint"]))
    assert len(good) == halted["step"] - 1 > 0
    assert Path(halted["checkpoint"]) == LocalSession(tmp_path).checkpoint()


def test_a_first_step_that_is_no_number_has_no_checkpoint_to_name(tmp_path):
    with pytest.raises(Halt, match="there is no checkpoint before it"):
        run(Line(poison=3), tmp_path, batch=5)
    assert json.loads((tmp_path / "halted.json").read_text())["checkpoint"] is None


def test_a_run_that_goes_on_forgets_that_it_halted(tmp_path):
    (tmp_path / "halted.json").write_text("{}")
    run(Line(), tmp_path, steps=2)
    assert not (tmp_path / "halted.json").exists()


def test_more_workers_than_rows_in_a_batch_are_refused(tmp_path):
    session = LocalSession(tmp_path)
    session.world = 8
    with pytest.raises(ConfigError, match="batch = 4 is less than the 8 training workers"):
        train(Training(Line(), line_options()), session)


def test_checkpoints_appear_whole_and_only_two_are_kept(tmp_path):
    run(Line(), tmp_path, checkpoint_every=10)
    kept = [name for name in os.listdir(tmp_path) if name != TRACKED]
    assert sorted(kept) == ["checkpoint_000005", "checkpoint_000006"]
