"""One store of two runs of the numbers DAG for every test of a command that reads a store."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

RECIPE = "support.numbers:numbers"


@pytest.fixture(scope="session")
def numbers_store(tmp_path_factory):
    """Runs `ten` (rows 3 and 4 quarantined) and `twelve`. Read only; `own_store` is a copy to spoil."""
    folder = tmp_path_factory.mktemp("numbers")
    faults = folder / "faults"
    faults.write_text("3=raise 4=raise")
    environment = os.environ | {"SALON_RAY_TMP": f"/tmp/salon-ray-{os.getpid()}"}
    for name, count in (("ten", "10"), ("twelve", "12")):
        command = [sys.executable, "-m", "jobs.cli", "run", RECIPE, "--root", str(folder / "store"), "--run-name", name]
        flags = ["--count", count, "--faults", str(faults)]
        done = subprocess.run([*command, *flags], capture_output=True, text=True, env=environment, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        faults.write_text("")
    return folder / "store"


@pytest.fixture
def own_store(numbers_store, tmp_path):
    """A copy of the store."""
    return shutil.copytree(numbers_store, tmp_path / "store")


@pytest.fixture
def salon(capsys):
    """Runs a command in this process: (exit status, stdout, stderr)."""
    from jobs.cli import main

    def command(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            status = main([str(word) for word in words])
        except SystemExit as stop:
            status = int(stop.code or 0)
        said = capsys.readouterr()
        return status, said.out, said.err

    return command
