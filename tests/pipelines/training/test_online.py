"""Online training: what is rewarded happens, killed runs go on exactly, and what cannot be right halts."""

import math

import pytest

from actors.training.launch import Halt, here
from actors.training.trainer import ended_early, read_curve, train
from pipelines.algorithms.online.stop import StopRule
from pipelines.models.adapter import Full
from pipelines.training.online import HeldOut, OnlinePrompt
from pipelines.training.rewarding import ScorerTerm
from pipelines.training.rollouts import RolloutFiles
from support.online import METHODS, Darkness, numbers, online, online_training
from support.training import TEXTS, write_world

HELD = tuple(OnlinePrompt(f"1text{1 + number}", text, "") for number, text in enumerate(TEXTS))
RATES = {"tapo": 4e-3, "step_grpo": 8e-3, "flow_grpo": 4e-3, "spo": 4e-3, "dpo": 4e-3}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    write_world(root, pairs=1)
    return root


def trained(job, folder, *, on_report=None, **options):
    return here(train, online_training(job, **options), folder=folder, on_report=on_report)


@pytest.mark.parametrize("name", METHODS)
def test_a_reward_for_darker_pictures_makes_darker_pictures(world, tmp_path, name):
    job = online(world, name, adapter=Full(), measured=HeldOut(HELD, every=20))
    curve = read_curve(trained(job, tmp_path, steps=21, checkpoint_every=21, learning_rate=RATES[name]))
    begun, ended = (row["held_out_reward"] for row in (curve[0], curve[-1]))
    assert ended > begun + 0.1
    assert curve[0]["loss"] == pytest.approx(math.log(2) if name in ("tapo", "spo", "dpo") else 0.0, abs=1e-3)
    assert curve[0]["gradient_norm"] > 1e-3


def test_a_run_killed_between_borders_finds_its_rollouts_and_ends_the_same(world, tmp_path):
    class Killed(RuntimeError):
        pass

    def kill(metrics):
        if metrics["step"] == 4:
            raise Killed

    whole = read_curve(trained(online(world), tmp_path / "whole", steps=6, checkpoint_every=3))
    with pytest.raises(Killed):
        trained(online(world), tmp_path / "halves", steps=6, checkpoint_every=3, on_report=kill)
    job = online(world)
    halves = read_curve(trained(job, tmp_path / "halves", steps=6, checkpoint_every=3))
    assert numbers(halves) == numbers(whole)
    assert job.rolled == [4, 5]  # rounds 0 to 2 are committed, 3 is read
    rows = RolloutFiles(tmp_path / "halves").numbers(rounds=6)
    assert len(rows) == 6 * 4 * 2
    assert {row.round for row in rows if row.used} == set(range(6))


def test_a_rollout_file_damaged_between_kill_and_resume_is_made_again(world, tmp_path, caplog):
    class Killed(RuntimeError):
        pass

    def kill(metrics):
        raise Killed

    whole = read_curve(trained(online(world), tmp_path / "whole", steps=2))
    with pytest.raises(Killed):
        trained(online(world), tmp_path / "halves", steps=2, on_report=kill)
    (part,) = (tmp_path / "halves" / "rollouts" / "000000").glob("*.parquet")
    part.write_bytes(part.read_bytes()[:-100])
    job = online(world)
    assert numbers(read_curve(trained(job, tmp_path / "halves", steps=2))) == numbers(whole)
    assert job.rolled == [0, 1]
    assert f"{part} is damaged" in caplog.text


def test_another_guidance_in_the_update_is_halted_with_both_numbers(world, tmp_path):
    method = METHODS["tapo"].model_copy(update={"guidance": 3.0})
    curve = read_curve(trained(online(world, method=method), tmp_path / "right", steps=2))
    assert curve[0]["parity"] < 1e-5

    job = online(world, method=method)
    share = job._share

    def other_guidance(model, number, session):
        part = share(model, number, session)
        job._ready.roller.method = method.model_copy(update={"guidance": 2.5})
        return part

    job._share = other_guidance
    with pytest.raises(Halt, match=r"rollout stored -?\d\.\d+, the update computes -?\d\.\d+, .* another guidance"):
        trained(job, tmp_path / "wrong", steps=2)


def test_failed_rewards_are_masked_and_counted(world, tmp_path):
    terms = (ScorerTerm(scorer=Darkness(fails=(TEXTS[0],))), ScorerTerm(scorer=Darkness(name="again"), weight=0.5))
    for name in METHODS:
        curve = read_curve(trained(online(world, name, rewards=terms), tmp_path / name, steps=2))
        assert curve[0]["masked_share"] == pytest.approx(0.5)
        assert curve[0]["zero_advantage_share"] >= 0.5
        assert math.isfinite(curve[1]["loss"])


def test_rewards_that_all_fail_halt(world, tmp_path):
    rewards = (ScorerTerm(scorer=Darkness(fails=tuple(TEXTS))),)
    with pytest.raises(Halt, match="every reward of round 0 is NaN"):
        trained(online(world, rewards=rewards), tmp_path)


def test_a_training_ends_where_the_reward_rises_and_the_measure_falls(world, tmp_path):
    against = (ScorerTerm(scorer=Darkness(name="brightness", sign=-1.0)),)
    measured = HeldOut(HELD, against, every=2, rule=StopRule(patience=2))
    job = online(world, adapter=Full(), measured=measured)
    checkpoint = trained(job, tmp_path, steps=20, learning_rate=4e-3)
    assert len(read_curve(checkpoint)) < 20
    assert "while the held-out measure fell from" in ended_early(checkpoint)
    assert (checkpoint / "export").is_dir()


def test_several_passes_over_a_round_leave_the_first_ratio_at_one(world, tmp_path):
    job = online(world, "flow_grpo", prompts_per_round=2, steps_per_round=4)
    curve = read_curve(trained(job, tmp_path, steps=8, batch=24, checkpoint_every=4))
    assert curve[0]["ratio"] == pytest.approx(1, abs=1e-6)
    assert curve[3]["ratio"] != curve[0]["ratio"]
    assert [row["step"] for row in curve if row.get("reward") is not None] == [1, 5]
