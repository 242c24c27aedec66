"""Two workers under Ray Train are one process: every engine, averages, groups, metrics only one rank has."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from actors.training.engines.engine import EngineOptions
from actors.training.launch import LocalSession, fit, here
from actors.training.options import TrainerOptions
from actors.training.trainer import STATE, Training, read_curve, train
from infra.dag.stage import Resources
from support.line import Line, Net, Rounds, line_options, net_options
from support.online import online, online_training
from support.training import write_world
from support.workers import one_after_another

TORCH = EngineOptions(kind="torch")
ENGINES = {
    "torch": TORCH,
    "zero1": EngineOptions(zero=1),
    "zero2": EngineOptions(zero=2),
    "zero3": EngineOptions(zero=3),
    "offload": EngineOptions(zero=3, offload="all"),
}


def net(engine: EngineOptions, **options) -> Training:
    return Training(Net(), net_options(engine=engine, ema=0.8, batch=7, micro_batch=2, **options))


def line(options: TrainerOptions) -> Training:
    return Training(Line(shapes=[0, 0, 0, 1, 1], centred=True), options)


def rounds(steps: int) -> Training:
    return Training(Rounds(), line_options(steps=steps, checkpoint_every=6))


@pytest.fixture(scope="module")
def two_workers(ray_session, tmp_path_factory):
    """The folder in which every job's folder is, and what one process makes of the same jobs."""
    root = tmp_path_factory.mktemp("fit")
    jobs = {name: net(engine) for name, engine in ENGINES.items()}
    jobs["resumed"] = net(EngineOptions(zero=3), steps=3)
    jobs["line"] = line(line_options(steps=20, batch=2))
    jobs["rounds"] = rounds(12)
    write_world(root / "world", pairs=1)
    jobs["online"] = online_training(online(root / "world"), steps=3, checkpoint_every=3)
    checkpoint = fit(
        one_after_another,
        jobs,
        workers=2,
        storage=root,
        name="two",
        resources=Resources(workers=2),
        max_failures=0,
        on_report=None,
    )
    return checkpoint.parent, here(train, net(TORCH), folder=root / "plain", on_report=None)


def same(found: Path, expected: Path) -> None:
    for metric in ("loss", "size", "gradient_norm"):
        columns = [[row[metric] for row in read_curve(checkpoint)] for checkpoint in (found, expected)]
        np.testing.assert_allclose(*columns, atol=1e-5, err_msg=metric)
    one, other = load_file(found / STATE), load_file(expected / STATE)
    assert one.keys() == other.keys()
    for key in one:
        np.testing.assert_allclose(one[key].numpy(), other[key].numpy(), atol=2e-4, err_msg=key)


@pytest.mark.parametrize("name", ENGINES)
def test_two_workers_are_one_average_included(two_workers, name):
    folder, plain = two_workers
    same(LocalSession(folder / name).checkpoint(), plain)


def test_one_process_goes_on_where_two_workers_stopped(two_workers):
    folder, plain = two_workers
    same(here(train, net(EngineOptions(zero=1)), folder=folder / "resumed", on_report=None), plain)


def test_rounds_that_two_workers_began_end_the_same_in_one_process(two_workers, tmp_path):
    folder, _ = two_workers
    whole = read_curve(here(train, rounds(24), folder=tmp_path, on_report=None))
    ours = read_curve(here(train, rounds(24), folder=folder / "rounds", on_report=None))
    for metric in ("loss", "begun_at", "gradient_norm"):
        columns = [[row[metric] for row in curve if metric in row] for curve in (ours, whole)]
        np.testing.assert_allclose(*columns, atol=1e-5, err_msg=metric)


def test_online_training_on_two_workers_is_one_and_its_rollouts_are_read_by_any_number(two_workers, tmp_path):
    folder, _ = two_workers
    job = online(folder.parent / "world")
    alone = read_curve(here(train, online_training(job, steps=6, checkpoint_every=3), folder=tmp_path, on_report=None))
    job = online(folder.parent / "world")
    ours = read_curve(
        here(train, online_training(job, steps=6, checkpoint_every=3), folder=folder / "online", on_report=None)
    )
    assert job.rolled == [3, 4, 5]
    for metric in ("loss", "reward", "policy_shift", "gradient_norm"):
        columns = [[row[metric] for row in curve] for curve in (ours, alone)]
        np.testing.assert_allclose(*columns, atol=2e-3 if metric == "gradient_norm" else 1e-5, err_msg=metric)


def test_metrics_that_only_one_rank_has_are_means_over_their_examples(two_workers, tmp_path):
    folder, _ = two_workers
    found = read_curve(LocalSession(folder / "line").checkpoint())
    alone = read_curve(here(train, line(line_options(steps=20, batch=2)), folder=tmp_path, on_report=None))
    assert {row["odd"] is None for row in alone} == {True, False}
    for metric in ("loss", "odd", "x", "centred"):
        for one, other in zip(found, alone, strict=True):
            assert one[metric] == (None if other[metric] is None else pytest.approx(other[metric], abs=1e-5))


def test_only_the_first_worker_tells_the_trackers(two_workers):
    folder, _ = two_workers
    rows = [json.loads(row) for row in (folder / "line" / "tracked" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 21))
