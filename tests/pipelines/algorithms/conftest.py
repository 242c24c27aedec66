"""Shapes written in signatures are checked here, and only here: every array that enters or leaves must fit them."""

import sys

import pytest
import torch
from jaxtyping import install_import_hook

PACKAGES = [
    f"pipelines.algorithms.{name}"
    for name in ("diffusion", "online", "preference", "reward", "rating", "voting", "metrics")
]
if not any(name.startswith(tuple(PACKAGES)) for name in sys.modules):
    install_import_hook(PACKAGES, "beartype.beartype")


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
