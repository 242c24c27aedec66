"""Examples in docstrings run as they stand, and what people call first has one."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FIRST = {
    "infra.store.artifacts",
    "infra.store.views",
    "pipelines.algorithms.preference.flow_dpo",
    "pipelines.algorithms.preference.margin",
    "pipelines.algorithms.rating.gap",
    "pipelines.algorithms.rating.gaussian",
    "pipelines.algorithms.reward.accuracy",
    "pipelines.algorithms.voting.ballots",
    "pipelines.algorithms.voting.panel",
    "pipelines.models.generators.generator",
    "pipelines.models.jurors.juror",
    "pipelines.models.scorers.scorer",
}
"""What a user calls first: querying, a loss, a rating, a panel, and the interfaces that a subclass implements."""


def modules_with_examples() -> list[str]:
    found = []
    for package in ("infra", "actors", "pipelines", "jobs"):
        for file in sorted((ROOT / package).rglob("*.py")):
            if ">>> " in file.read_text(encoding="utf-8"):
                found.append(".".join(file.relative_to(ROOT).with_suffix("").parts))
    return found


def test_what_people_call_first_has_an_example():
    assert set(modules_with_examples()) >= FIRST


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_in_docstrings_say_what_the_code_gives(name):
    found = doctest.testmod(import_module(name))
    assert found.attempted > 0 and found.failed == 0
