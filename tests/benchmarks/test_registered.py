"""Every benchmark that `make bench` names is there."""

from importlib import import_module

import pytest

from tests.benchmarks.run import LONG, NAMES, main


@pytest.mark.parametrize("name", [*NAMES, *LONG])
def test_a_registered_benchmark_has_a_run_and_says_what_it_measures(name):
    module = import_module(f"tests.benchmarks.{name}")
    assert callable(module.run)
    assert module.__doc__


def test_an_unknown_name_is_refused(capsys):
    assert main(["wishes"]) == 2
    assert "known are" in capsys.readouterr().err
