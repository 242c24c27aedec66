"""The device is decided by the resources alone."""

import pytest
import torch

from actors.device import device_of
from infra.cluster.connection import WAIT_FOR_GPUS, require_gpus
from infra.config import ConfigError
from infra.dag.stage import Resources


def test_no_gpu_asked_for_is_the_cpu_whatever_the_process_sees(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_of(Resources(gpus=0)) == "cpu"
    assert device_of(Resources(gpus=0.5)) == "cuda"


def test_a_gpu_asked_for_and_not_there_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="--gpus 0"):
        device_of(Resources(gpus=1))


def test_labels_and_environment_of_an_actor_reach_ray_and_are_no_part_of_the_identity():
    from infra.cluster.connection import options
    from support.numbers import Numbers

    there = Resources(label_selector={"gpu": "h100"}, runtime_env={"env_vars": {"A": "1"}})
    assert options(there) == {
        "num_cpus": 1.0,
        "num_gpus": 0.0,
        "label_selector": {"gpu": "h100"},
        "runtime_env": {"env_vars": {"A": "1"}},
    }
    assert "label_selector" not in options(Resources())
    assert Numbers(resources=there).key == Numbers().key


def test_a_process_without_gpus_of_its_own_sees_none(monkeypatch):
    import os

    from actors.device import hide_gpus

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    hide_gpus(Resources(gpus=1))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"
    hide_gpus(Resources())
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


def test_more_gpus_than_any_machine_has_are_refused_at_once_unless_an_autoscaler_adds_them(monkeypatch):
    asked = [Resources(), Resources(gpus=1)]
    with pytest.raises(ConfigError, match="--gpus 1: this machine has no GPU; give --gpus 0"):
        require_gpus(asked, there=0.0, place="this machine")
    with pytest.raises(ConfigError, match="the cluster has at most 0.5 GPUs on one machine"):
        require_gpus(asked, there=0.5, place="the cluster")
    require_gpus(asked, there=1.0, place="the cluster")
    monkeypatch.setenv(WAIT_FOR_GPUS, "1")
    require_gpus(asked, there=0.0, place="the cluster")
