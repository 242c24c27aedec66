"""Examples in docstrings of what people call first: run as they stand."""

import doctest
from importlib import import_module

import pytest

MODULES = [
    "pipelines.algorithms.metrics.text_match",
    "pipelines.algorithms.preference.margin",
    "pipelines.algorithms.rating.gap",
    "pipelines.algorithms.rating.gaussian",
    "pipelines.laboratory.claims",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_say_what_the_code_gives(name):
    found = doctest.testmod(import_module(name))
    assert found.attempted > 0 and found.failed == 0
