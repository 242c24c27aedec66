"""The device is decided by the resources alone."""

import pytest
import torch

from actors.device import device_of
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
