"""A stage that only names another run's artifact is a hit or is refused: nothing of it is ever moved or computed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import ClassVar

import pytest

from infra.config import ConfigError
from infra.dag.plan import CachePolicy
from infra.dag.run import Runner
from infra.dag.selection import Selection
from infra.dag.stage import Context, TableStage
from infra.store.artifacts import Store
from support.inline import InlineExecutor
from support.numbers import Total, numbers
from tests.benchmarks.quiet import Quiet


class AnothersSum(TableStage):
    """The sum of another run, by its key."""

    name: ClassVar = "sum"
    row: ClassVar = Total
    elsewhere: ClassVar = True
    artifact: str

    @cached_property
    def key(self) -> str:
        return self.artifact

    def run(self, context: Context) -> Iterator[Total]:
        raise AssertionError("computed")


class Twice(TableStage):
    """Twice that sum."""

    name: ClassVar = "twice"
    row: ClassVar = Total
    total: AnothersSum

    def run(self, context: Context) -> Iterator[Total]:
        for row in context.rows(self.total):
            yield Total(2 * row.total, row.rows)


@pytest.fixture
def made(tmp_path):
    """The store, and the sum that a run has left there."""
    store, total = Store(tmp_path / "store"), numbers(count=4)
    Runner(store, InlineExecutor(), Quiet(), recipe="numbers").run(total, Selection())
    return store, total


def run(store: Store, key: str, **policy) -> Twice:
    twice = Twice(total=AnothersSum(artifact=key))
    Runner(store, InlineExecutor(), Quiet(), CachePolicy(**policy), recipe="twice").run(twice, Selection())
    return twice


@pytest.mark.parametrize("policy", [{}, {"strict_code": True}, {"retry_errors": True}, {"verify": True}])
def test_it_is_a_hit_whatever_code_made_it(made, policy):
    store, total = made
    twice = run(store, total.key, **policy)
    assert [row.total for row in store.artifact(twice).rows(Total)] == [2 * (0 + 1 + 4 + 9)]


def test_forced_it_is_refused_and_stays(made):
    store, total = made
    before = sorted(store.directory(total).iterdir())
    with pytest.raises(ConfigError, match="is of another run and not computed here .forced.; give --root"):
        twice = Twice(total=AnothersSum(artifact=total.key))
        Runner(store, InlineExecutor(), Quiet(), recipe="twice").run(twice, Selection(force=("sum",)))
    assert sorted(store.directory(total).iterdir()) == before


def test_what_is_not_there_is_refused(made):
    with pytest.raises(ConfigError, match="is of another run and not computed here"):
        run(made[0], "0" * 24)
