"""Training under Ray Train: as many workers as one likes, and deaths at any moment, on one curve."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from ray._private.state import actors

from actors.training.engines.engine import EngineOptions
from actors.training.launch import REPORTS, Halt, fit, here
from actors.training.trainer import Training, read_curve, train
from infra.dag.stage import Resources
from support.line import Line, line_options
from support.training import column, training, write_world

STEPS = 6
TORCH = EngineOptions(kind="torch")


@dataclass
class Dying:
    """A training whose rank 1 dies by SIGKILL at its first way past the second checkpoint."""

    training: Training
    mark: Path


def die_once(config: Dying, session) -> None:
    """`train`, but for one death."""
    commit = session.commit

    def fatal(checkpoint):
        commit(checkpoint)
        if session.rank == 1 and len(list(config.mark.parent.glob("mark*"))) == 1:
            config.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if session.rank == 1 and not config.mark.exists():
            config.mark.with_name("mark-first").touch()

    session.commit = fatal
    train(config.training, session)


def three_stages(config: list[Training], session) -> None:
    """ZeRO 1, 2 and 3 one after the other in one start of the workers; the last one's checkpoint stays."""
    for number, training_ in enumerate(config):
        session.commit, session.checkpoint = (lambda folder: None), (lambda: None)
        rows: list[dict] = []
        session.report = rows.append
        train(training_, session)
        if session.rank == 0:
            (session.folder / f"zero{number + 1}.json").write_text(json.dumps(rows))
    del session.commit, session.checkpoint
    train(config[0], session)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    write_world(root)
    return root


@pytest.fixture(scope="module")
def undisturbed(world):
    """The curve of plain torch in one process."""
    return column(read_curve(here(train, training(world, engine=TORCH), folder=world / "plain", on_report=None)))


def run(loop, config, root, *, name, workers=2, max_failures=0, on_report=None) -> Path:
    resources = Resources(workers=workers)
    return fit(
        loop,
        config,
        workers=workers,
        storage=root / "runs",
        name=name,
        resources=resources,
        max_failures=max_failures,
        on_report=on_report,
    )


def test_zero_1_2_and_3_on_two_workers_are_plain_torch(ray_session, world, undisturbed):
    trainings = [training(world, engine=EngineOptions(zero=zero)) for zero in (1, 2, 3)]
    checkpoint = run(three_stages, trainings, world, name="stages")
    np.testing.assert_allclose(column(read_curve(checkpoint)), undisturbed, atol=1e-4)
    for zero in (1, 2, 3):
        curve = json.loads((checkpoint.parent / f"zero{zero}.json").read_text())
        np.testing.assert_allclose(column(curve), undisturbed, atol=1e-4)
    started = {actor["ActorClassName"] for actor in actors().values()}
    assert "RayTrainWorker" in started and "DatasetManager" not in started  # nobody reads data sets of Ray


def test_a_killed_worker_is_replaced_and_the_curve_is_the_same(ray_session, world, undisturbed, tmp_path):
    heard: list[int] = []
    config = Dying(training(world, engine=EngineOptions(zero=2)), tmp_path / "mark")
    checkpoint = run(
        die_once, config, world, name="dying", max_failures=1, on_report=lambda metrics: heard.append(metrics["step"])
    )
    assert config.mark.exists()
    np.testing.assert_allclose(column(read_curve(checkpoint)), undisturbed, atol=1e-4)
    assert set(heard) == set(range(1, STEPS + 1))


def test_a_loss_that_is_no_number_ends_all_workers_at_once_and_is_not_retried(ray_session, tmp_path):
    with pytest.raises(Halt, match=r"loss of step \d+ is not a finite number, on row-3; "):
        run(train, Training(Line(poison=3), line_options()), tmp_path, name="halting", max_failures=5)


SCRIPT = """
import sys, time
from pathlib import Path
from support.training import training
from actors.training.engines.engine import EngineOptions
from actors.training.trainer import train
from infra.cluster.connection import connected
from infra.dag.stage import Resources
from actors.training.launch import fit

def slowly(config, session):
    report = session.report
    session.report = lambda metrics: (report(metrics), time.sleep(1.0))
    train(config, session)

root = Path(sys.argv[1])
with connected(workers=2):
    fit(slowly, training(root, engine=EngineOptions(zero=1)), workers=2, storage=root / "runs", name="killed",
        resources=Resources(), max_failures=0, on_report=None)
"""


def test_a_killed_driver_is_started_again_with_another_number_of_workers(ray_session, world, undisturbed):
    driver = subprocess.Popen([sys.executable, "-c", SCRIPT, str(world)], start_new_session=True)
    reports = world / "runs" / "killed" / REPORTS
    deadline = time.monotonic() + 120
    while not (reports.exists() and reports.read_text().count("\n") >= 4):
        assert driver.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    time.sleep(3)  # its workers notice
    done = reports.read_text().count("\n")
    assert done < STEPS + 1
    checkpoint = run(train, training(world, engine=EngineOptions(zero=3)), world, name="killed", workers=3)
    np.testing.assert_allclose(column(read_curve(checkpoint)), undisturbed, atol=1e-4)
    resumed = [line for line in reports.read_text().splitlines()[done:] if '"step": 1,' in line]
    assert resumed == []


def test_a_training_in_this_process_is_shown_no_gpu(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    seen = []
    with pytest.raises(RuntimeError, match="without a checkpoint"):
        here(lambda config, session: seen.append(os.environ["CUDA_VISIBLE_DEVICES"]), None, folder=tmp_path, on_report=None)
    assert seen == [""]
