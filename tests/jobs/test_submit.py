"""`salon submit` on a real head: logs followed, the job's own exit code, one job for one submission."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from infra.cluster.submission import Submission, excluded, require_small, uploaded, words_without
from infra.config import ConfigError
from infra.dag.source import ROOT

RECIPE = "support.numbers:numbers"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def head():
    """(dashboard address, environment of its clients) of a Ray head with token authentication."""
    folder = Path(tempfile.mkdtemp(prefix="salon-", dir="/tmp"))  # short: it holds sockets
    (folder / "token").write_text("0123456789abcdef" * 2)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # `python` of a job is the environment's
    environment = os.environ | {"PATH": path, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / "token")}
    port, dashboard, agent = free_port(), free_port(), free_port()
    command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--disable-usage-stats"]
    command += ["--port", str(port), "--dashboard-port", str(dashboard), "--dashboard-agent-listen-port", str(agent)]
    command += ["--include-dashboard", "true", "--num-cpus", "8", "--object-store-memory", "100000000"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--temp-dir", str(folder / "ray")],
            env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        wait_for_port(dashboard, process, folder / "log")
        yield f"http://127.0.0.1:{dashboard}", environment
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise AssertionError(f"no dashboard in a minute: {log.read_text()}")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The source without the weights: what the numbers need."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("infra", "actors", "jobs", "pipelines", "tests/support"):
        ignore = shutil.ignore_patterns("__pycache__", "weights")
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    return folder


@pytest.fixture
def submit(head, source):
    """Submits the numbers: (exit status, output)."""
    address, environment = head

    def command(root: Path, *words: str) -> tuple[int, str]:
        fixed = [
            "--address",
            address,
            "--working-dir",
            str(source),
            "--python",
            sys.executable,
            "--env",
            "PYTHONPATH=tests",
        ]
        line = [sys.executable, "-m", "jobs.cli", "submit", RECIPE, "--root", str(root), *fixed, *words]
        done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=100, check=False)
        return done.returncode, done.stdout + done.stderr

    return command


def test_one_job_for_one_submission_and_its_own_exit_code(submit, tmp_path, salon):
    root = tmp_path / "store"
    status, out = submit(root, "--run-name", "submitted")
    assert status == 0, out
    assert "submitted:" in out and "sum          done     1 rows" in out
    assert salon("sql", "SELECT total FROM sum", "--root", root, "--csv")[1] == "total\n285\n"
    status, again = submit(root, "--run-name", "submitted")
    assert (status, "-2 submitted:" in again, "sum          hit      1 rows" in again) == (0, True, True), again

    (tmp_path / "faults").write_text("3=raise 4=raise 5=raise")
    faulty = (tmp_path / "faulty", "--faults", str(tmp_path / "faults"))
    status, out = submit(*faulty)
    assert status == 1, out
    assert "3 of 10 rows were quarantined" in out and "resume with: salon submit" in out
    status, out = submit(*faulty, "--no-wait")
    assert status == 0
    job = next(line for line in out.splitlines() if line.startswith("job ")).split()[1]
    assert job.endswith("-2") and "ray job stop --address" in out


def test_ray_job_submit_runs_a_recipe_from_a_checkout(head):
    address, environment = head
    typed = "--working-dir . -- python -m jobs.run miniature --prompts 6 --evaluation 6 --until pair --workers 1"
    line = [str(Path(sys.executable).parent / "ray"), "job", "submit", "--address", address, *typed.split()]
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200, check=False)
    out = done.stdout + done.stderr
    assert done.returncode == 0, out
    assert "pair         done" in out and "--root salon-store lies in this job's copy of the source" in out


def test_the_upload_is_the_source_and_small(tmp_path):
    from zipfile import ZipFile

    from ray._private.runtime_env.packaging import create_package

    package = tmp_path / "package.zip"
    create_package(str(ROOT), package, include_gitignore=True)
    with ZipFile(package) as archive:
        names = {name.split("/")[0] for name in archive.namelist()}
    assert {"infra", "actors", "pipelines", "jobs"} <= names
    assert not names & {".git", ".venv", ".github", ".ci", "tests", "salon-store"}
    assert package.stat().st_size < 30 * 2**20


@pytest.mark.parametrize("token", [None, "another" * 6])
def test_a_client_without_the_token_of_the_head_is_told_what_to_set(head, tmp_path, token):
    address, environment = head
    there = {name: value for name, value in environment.items() if not name.startswith("RAY_AUTH")}
    if token:
        (tmp_path / "token").write_text(token)
        there |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
    line = [sys.executable, "-m", "jobs.cli", "submit", RECIPE, "--root", "/tmp/x", "--address", address]
    done = subprocess.run(line, env=there, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert f"--address {address}: the cluster wants a token; set RAY_AUTH_MODE=token here" in done.stderr


def test_flags_are_checked_before_anything_is_submitted(salon):
    nowhere = ("--address", "http://127.0.0.1:1")
    status, _, message = salon("submit", RECIPE, *nowhere, "--root", "/tmp/x", "--scale", 0)
    assert (status, "--scale 0" in message) == (2, True)
    status, _, message = salon("submit", RECIPE, *nowhere)
    assert (status, "give an absolute path" in message) == (2, True)
    status, _, message = salon("submit", RECIPE, *nowhere, "--root", "/tmp/x", "--env", "NAME")
    assert (status, "give NAME=VALUE" in message) == (2, True)


def test_too_large_an_upload_names_the_largest_folders(tmp_path):
    (tmp_path / "data" / "raw").mkdir(parents=True)
    (tmp_path / "data" / "raw" / "big").write_bytes(bytes(3 * 2**20))
    (tmp_path / "small.py").write_text("1")
    with pytest.raises(ConfigError, match=r"the largest are data/raw \(3.0 MiB\)"):
        require_small(tmp_path, limit=2 * 2**20)
    assert require_small(tmp_path) == 3 * 2**20 + 1


def test_the_id_follows_the_uploaded_source_and_the_command(tmp_path):
    for name in ("a.py", ".git/HEAD", "pkg/__pycache__/a.pyc", "salon-store/part"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1")
    assert uploaded(tmp_path) == [tmp_path / "a.py"]
    assert {path.name for path in excluded(tmp_path)} == {".git", "__pycache__", "salon-store"}
    first = Submission("run", tmp_path).id()
    (tmp_path / ".git" / "HEAD").write_text("2")
    assert Submission("run", tmp_path).id() == first
    assert Submission("run --count 3", tmp_path).id() != first
    (tmp_path / "a.py").write_text("2")
    assert Submission("run", tmp_path).id() != first
    assert Submission("run", tmp_path, name="mine").id() == "mine"


def test_flags_are_taken_out_with_their_values():
    assert words_without(["r", "--root", "/x", "--count", "3", "--root=/y", "--verify"], ["--root"]) == [
        "r",
        "--count",
        "3",
        "--verify",
    ]
