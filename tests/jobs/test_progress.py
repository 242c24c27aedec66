"""Bars of stages that are computed beside one another."""

from __future__ import annotations

import io
from types import SimpleNamespace

from jobs.progress import Console


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_each_running_stage_has_a_bar_and_one_that_ends_leaves_the_others_theirs():
    console = Console(Terminal())
    console.advanced("reward", 1, 100, "loss 0.7")
    console.advanced("tune", 5, 200, "")
    assert set(console.tasks) == {"reward", "tune"}
    console.finished("reward", SimpleNamespace(rows=100, seconds=3.0, reused_rows=0, error_rows=0))
    assert set(console.tasks) == {"tune"}
    assert console.bar is not None
    console.finished("tune", SimpleNamespace(rows=200, seconds=9.0, reused_rows=0, error_rows=0))
    assert console.bar is None
    assert "reward       done     100 rows, 3.0 s" in console.stream.getvalue()
