"""SIGKILL at any moment, then the same command with other workers: the same bytes, no row twice, none missing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

RECIPE = "support.numbers:numbers"


def start(root: Path, journal: Path, *extra: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "jobs.cli", "run", RECIPE, "--root", str(root), "--journal", str(journal)]
    environment = os.environ | {"SALON_RAY_TMP": f"/tmp/salon-ray-{os.getpid()}"}
    return subprocess.Popen(
        [*command, *extra], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
    )


def shards(root: Path) -> int:
    return len(list((root / "artifacts").glob("squares/*/part-*.parquet")))


def wait_for(count: int, root: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while shards(root) < count:
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        assert time.monotonic() < deadline, "no shard in two minutes"
        time.sleep(0.05)


def artifacts(root: Path) -> dict[str, bytes]:
    folder = root / "artifacts"
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*.parquet"))}


def values(journal: Path) -> list[int]:
    return sorted(int(line) for line in journal.read_text().split())


ARGUMENTS = ("--count", "60", "--shard-rows", "3")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    process = start(folder / "store", folder / "journal", *ARGUMENTS)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    return artifacts(folder / "store")


def test_killed_actor_and_killed_driver_leave_the_bytes_of_an_undisturbed_run(tmp_path, undisturbed):
    root, journal = tmp_path / "store", tmp_path / "journal"
    process = start(root, journal, *ARGUMENTS, "--pause-s", "0.4", "--workers", "2")
    wait_for(3, root, process)
    family = psutil.Process(process.pid).children(recursive=True)
    actors = [child for child in family if child.is_running() and "_Host" in " ".join(child.cmdline())]
    assert actors, [child.name() for child in family]
    actors[0].kill()
    wait_for(8, root, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, left = psutil.wait_procs(family, timeout=15)
    assert [one.name() for one in left if one.status() != psutil.STATUS_ZOMBIE] == [], "a killed driver's Ray ends with it"
    done = shards(root)
    assert done < 20, "killed too late to show anything"

    again = start(root, journal, *ARGUMENTS, "--workers", "3")
    output, _ = again.communicate(timeout=120)
    assert again.returncode == 0, output
    assert artifacts(root) == undisturbed
    assert set(values(journal)) == set(range(60))
    # A shard in flight when its actor or the driver died may be computed again; a finished one never is.
    assert len(values(journal)) <= 60 + 3 * 3, "at most the three shards that were in flight"


def test_a_ray_that_ends_as_the_actors_start_ends_the_run_and_not_only_after_minutes(tmp_path):
    process = start(tmp_path / "store", tmp_path / "journal", *ARGUMENTS, "--pause-s", "0.4")
    agents: list[psutil.Process] = []
    deadline = time.monotonic() + 120
    while not agents:
        assert process.poll() is None and time.monotonic() < deadline
        family = psutil.Process(process.pid).children(recursive=True)
        lines = {one: " ".join(one.cmdline()) for one in family if one.is_running()}
        if any("ray::" in line or "default_worker" in line for line in lines.values()):
            agents = [one for one, line in lines.items() if "dashboard/agent.py" in line]
        time.sleep(0.05)
    for agent in agents:
        agent.kill()
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 1 and "resume with: salon run" in output, output


def test_two_runs_at_once_compute_once(tmp_path, undisturbed):
    root, journal = tmp_path / "store", tmp_path / "journal"
    pair = [start(root, journal, *ARGUMENTS, "--pause-s", "0.1", "--run-name", name) for name in ("one", "two")]
    outputs = [process.communicate(timeout=180)[0] for process in pair]
    assert [process.returncode for process in pair] == [0, 0], outputs
    assert values(journal) == list(range(60))
    assert any("another run computed it meanwhile" in output for output in outputs)
    assert artifacts(root) == undisturbed


def test_a_failure_ends_with_the_command_that_resumes(tmp_path):
    faults = tmp_path / "faults"
    faults.write_text("open=raise")
    process = start(tmp_path / "store", tmp_path / "journal", "--faults", str(faults), "--count", "5")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    last = output.strip().splitlines()[-1]
    assert last.startswith("resume with: salon run support.numbers:numbers --root") and "--count 5" in last
