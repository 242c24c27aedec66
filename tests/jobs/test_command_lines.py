"""Every senseless command line ends with status 2, one message that names flag and value, no traceback and no new file."""

import os
import shutil
import socket
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.cluster import connection
from infra.cluster.submission import Submission
from infra.config import ConfigError
from infra.dag.selection import Selection
from infra.dag.stage import topological
from infra.store.artifacts import Store
from infra.store.runs import NAME, RunFile, read_runs
from jobs.arguments import Parser, build, common, run_name_flag
from jobs.cli import guarded
from support.numbers import numbers

RECIPE = "support.numbers:numbers"
STAGES = ("numbers", "squares", "sum")
BAD_NAMES = st.one_of(
    st.sampled_from(["../../evil", "/abs", "a/b", ".", "..", " ", "a b", "a\nb", "a\x07b", "-x", "é", "x" * 101, ""]),
    st.text(max_size=30).filter(lambda text: not NAME.fullmatch(text)),
)
BAD_NUMBERS = {
    "--guidance": ["inf", "nan", "-inf", "1e999", "0.5", "x"],
    "--learning-rate": ["inf", "nan", "0", "-1", "2", "1e9"],
    "--beta": ["inf", "nan", "0", "-5", "1e300"],
    "--gpus": ["inf", "nan", "-1", "1000"],
    "--steps": ["0", "-1", "999999999", "1.5", "many"],
    "--batch": ["0", "999999999", "nan"],
    "--workers": ["0", "-3", "99999"],
    "--seed": ["-1", "1" * 40],
    "--zero": ["9", "one"],
    "--adapter": ["lroa", ""],
}
BAD_OFFLINE = [
    ("flow_dpo_video", "--frames", "8"),
    ("flow_dpo_video", "--draws", "8", "--method=sft"),
    ("flow_dpo_video", "--dimensions", "TA=high"),
    ("vipo_video", "--frames", "81,0"),
    ("vipo_image", "--alpha", "-1.01"),
    ("vipo_image", "--alpha", "1" * 400),
    ("vipo_image", "--batch", "15"),
    ("vipo_image", "--workers", "513"),
    ("arenapo", "--draws", "1", "--form=mapo"),
    ("lab", "--methods", "dpo,nobody"),
    ("lab", "--noises", "0.5"),
]
BAD_LISTS = {
    "--sources": ["nobody", "", "policy,", "policy,policy", "late", "policy,nobody"],
    "--jury": ["nobody", "", ",", "x,x"],
    "--roster": ["late", "nobody", "policy,policy", "policy,,late"],
}
NO_RECIPES = [
    "json:dumps",
    "os:system",
    "infra.dag.stage:Stage",
    ":",
    "a:",
    ":b",
    "no_module:x",
    "miniatur",
    "a/b:c",
    "json:",
]
NO_ADDRESSES = ["nonsense", "127.0.0.1:999999", "127.0.0.1:0", "http://127.0.0.1:1", "127.0.0.1:1", ":", "a b:1"]


def words(flag, value):
    """A flag with its value as one word, so that a value with a dash before it is a value."""
    return [f"{flag}={value}"]


numbers_out_of_bounds = st.sampled_from([(f, v) for f, vs in BAD_NUMBERS.items() for v in vs])
lists_of_nobody = st.sampled_from([(f, v) for f, vs in BAD_LISTS.items() for v in vs])
command = st.sampled_from(["plan", "run"])
LINES = st.one_of(
    st.builds(lambda c, fv: (c, ["miniature", *words(*fv)], fv[0]), command, numbers_out_of_bounds),
    st.builds(lambda c, fv: (c, [*words(*fv), "miniature"], fv[0]), command, lists_of_nobody),
    st.builds(
        lambda c, line: (c, [line[0], *words(line[1], line[2]), *line[3:]], line[1]), command, st.sampled_from(BAD_OFFLINE)
    ),
    st.builds(lambda n: ("run", [RECIPE, *words("--run-name", n)], "--run-name"), BAD_NAMES),
    st.builds(lambda c, n: (c, words("--run", n), "--run"), st.sampled_from(["report"]), BAD_NAMES),
    st.builds(lambda c, r: (c, [r], repr(r)), command, st.sampled_from(NO_RECIPES)),
    st.builds(lambda a: ("run", [RECIPE, *words("--address", a)], "--address"), st.sampled_from(NO_ADDRESSES)),
    st.builds(
        lambda a: ("submit", [RECIPE, "--root=/tmp/x", *words("--address", a)], "--address"),
        st.sampled_from(["nonsense", "http://127.0.0.1:1", "http://127.0.0.1:999999", "ftp://x", "http://"]),
    ),
    st.builds(
        lambda c, r: (c, [RECIPE, *words("--root", r)], "--root"),
        command,
        st.sampled_from(["file", "file/below", "", " ", "x" * 300, "x/" * 600, "/proc/none", "/dev/null", "a\nb"]),
    ),
    st.builds(
        lambda c, f: (c, [RECIPE, *f], f[0].split("=")[0]),
        command,
        st.sampled_from(
            [
                ["--only=numbers", "--from=sum"],
                ["--until=numbers", "--from=sum"],
                ["--force=sum", "--until=numbers"],
                ["--only=cubes"],
                ["--verif"],
                ["--retry"],
            ]
        ),
    ),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with one file, `file`, which every command line of this module is run in."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "file").write_text("x")
    before = os.getcwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


@settings(max_examples=100)
@given(line=LINES)
def test_senseless_command_lines_are_refused(place, line):
    import contextlib
    import io

    name, argv, spoken = line
    heard, began = io.StringIO(), time.monotonic()
    with contextlib.redirect_stderr(heard), contextlib.redirect_stdout(io.StringIO()):
        assert guarded(name, argv) == 2, argv
    message = heard.getvalue()
    assert message.startswith(f"salon {name}: ") and message.count("\n") == 1, message
    assert spoken in message and "Traceback" not in message, message
    assert time.monotonic() - began < (10 if spoken == "--address" else 3), argv
    assert [path.name for path in place.iterdir()] == ["file"]


@pytest.mark.parametrize("argv", [["run", "miniature", "--run-name", "../x"], ["plan", "json:dumps"], ["gc", "--dry"]])
def test_a_process_of_its_own_ends_with_status_2_within_3_seconds_of_work(argv, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "jobs.cli", *argv], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, "Traceback" in done.stderr, list(tmp_path.iterdir())) == (2, False, [])


@pytest.mark.parametrize(
    "argv",
    [
        ["--root", "zoo", RECIPE, "--count", "3"],
        ["--run-name", "zoo", "--count", "3", RECIPE],
        ["--count", "3", "--until", "sum", RECIPE],
        [RECIPE, "--count=3", "--root", "miniature"],
    ],
)
def test_the_value_of_a_flag_is_never_the_recipe(argv):
    parser = Parser(prog="salon run")
    common(parser)
    run_name_flag(parser)
    parsed, target, values = build(parser, argv)
    assert (parsed.recipe, values, target.name) == (RECIPE, {"count": 3}, "sum")


def test_nothing_selected_is_refused():
    order = topological(numbers())
    with pytest.raises(ConfigError, match="select no stage together"):
        Selection(only="numbers", start="sum").of(order)
    assert [stage.node for stage in Selection(start="squares", until="squares").of(order)] == ["squares"]


def test_two_runs_of_one_name_and_second_have_files_of_their_own(tmp_path):
    from datetime import UTC, datetime

    store, now = Store(tmp_path), datetime(2026, 1, 1, tzinfo=UTC)
    names = [RunFile.claim(store, name, recipe="a.b:c", started=now).name for name in ("", "", "mine", "mine", "mine")]
    assert names == ["a.b-c-20260101-000000", "a.b-c-20260101-000000-2", "mine", "mine-2", "mine-3"]
    assert [run["name"] for run in read_runs(store).readable] == sorted(names)


@pytest.mark.parametrize(
    "text", ["", "no JSON", "[]", "{}", '{"name": "other", "started": "", "status": "", "stages": []}']
)
def test_a_broken_run_file_is_named_and_gc_keeps_all_artifacts(text, salon, own_store):
    (own_store / "runs" / "broken.json").write_text(text)
    for path in (own_store / "runs").glob("ten.*"):
        path.unlink() if path.is_file() else shutil.rmtree(path)
    for words_ in (["show"], ["sql", "SELECT 1"], ["explain", "sum"]):
        status, _, message = salon(*words_, "--root", own_store)
        assert (status, "runs/broken.json" in message) == (0, True), message
    assert salon("report", "--root", own_store)[0] == 2
    before = sorted((own_store / "artifacts").rglob("*"))
    assert salon("gc", "--keep-runs", 1, "--root", own_store)[0] == 0
    assert sorted((own_store / "artifacts").rglob("*")) == before


def test_every_line_of_a_run_is_in_its_log_with_the_time(numbers_store):
    lines = (numbers_store / "runs" / "ten.log").read_text().splitlines()
    assert all(line[:4].isdigit() and line[10] == " " and line[19:21] == "  " for line in lines)
    assert any("squares" in line and "done" in line for line in lines) and any(
        line.endswith("  run ten: done") for line in lines
    )


def test_replaced_artifacts_are_outside_the_glob_and_help_shows_the_dag(salon, numbers_store):
    assert not list((numbers_store / "artifacts").glob("*/*.old-*"))
    with pytest.raises(SystemExit):
        guarded("run", [RECIPE, "--help"])


def test_help_lists_choices_bounds_and_defaults(capsys):
    with pytest.raises(SystemExit):
        guarded("plan", ["miniature", "--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert "prompts -> render -> pair" in out and "--zero {0,1,2,3}" in out
    assert "training captions (6 to 3000; default: 900)" in out
    assert "default None" not in out and "default ()" not in out


def test_another_submission_under_the_same_id_has_another_digest(tmp_path):
    one, two = (Submission(f"run --count {count}", tmp_path, name="mine") for count in (1, 2))
    assert one.id() == two.id() and one.digest != two.digest


@pytest.mark.parametrize(
    ("given", "address", "said"),
    [
        ("127.0.0.1:1", "local", "RAY_ADDRESS=127.0.0.1:1: nothing takes connections there"),
        ("127.0.0.1:1", "auto", "RAY_ADDRESS=127.0.0.1:1: nothing takes connections there"),
        ("http://127.0.0.1:8265", "local", "RAY_ADDRESS=http://127.0.0.1:8265: 'http://127.0.0.1:8265' is no address"),
        ("", "ray://127.0.0.1:1", "--address ray://127.0.0.1:1: nothing takes connections there"),
    ],
)
def test_an_address_from_the_environment_is_checked_as_one_that_is_given(given, address, said, salon, place, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", given)
    status, _, message = salon("run", RECIPE, "--address", address)
    assert (status, said in message) == (2, True), message
    assert [path.name for path in place.iterdir()] == ["file"]


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_port_that_takes_connections_and_says_nothing_is_given_up(scheme, salon, place, monkeypatch):
    monkeypatch.setattr(connection, "ANSWER_S", 6.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"{scheme}127.0.0.1:{silent.getsockname()[1]}"
        status, _, message = salon("run", RECIPE, "--address", address)
    assert (status, f"--address {address}: no Ray cluster answers there" in message) == (2, True), message
