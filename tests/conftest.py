"""The whole suite: one Ray, one thread of arithmetic, nothing from the network, the same examples every time."""

import os
from pathlib import Path

TESTS = Path(__file__).parent

# Before the first import of a library that reads them; worker processes and commands under test inherit them.
os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", RAY_TRAIN_V2_ENABLED="1")
os.environ["PYTHONPATH"] = os.pathsep.join([str(TESTS), str(TESTS.parent)])
os.environ.pop("RAY_ADDRESS", None)

import pytest
from hypothesis import HealthCheck, settings

slow = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile("ci", derandomize=True, deadline=None, database=None, suppress_health_check=slow)
settings.register_profile("dev", deadline=None, suppress_health_check=slow)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def ray_session():
    """One local Ray for every test that asks: 16 logical CPUs, no dashboard."""
    from infra.cluster.connection import connected

    with connected(workers=4):
        yield
