import pytest
import torch

from support.tiny import FAMILIES, family_at, write_tiny


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The folder of each family's tiny pipeline."""
    root = tmp_path_factory.mktemp("tiny")
    return {name: write_tiny(name, root / name) for name in FAMILIES}


@pytest.fixture(scope="session")
def whole(tiny):
    """Each family's tiny pipeline, loaded whole; tests leave it as it is."""
    return {
        name: family_at(name, folder).load(parts="all", device="cpu", dtype=torch.float32) for name, folder in tiny.items()
    }
