"""`salon report`: finds the newest run's report, checks its hash, and prints its path, copies it or opens it."""

from __future__ import annotations

import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infra.config import ConfigError
from infra.store.artifacts import Artifact, Store
from infra.store.record import read_record
from infra.store.runs import nodes_of, read_runs, run_named
from infra.store.tables import DamagedFile, write_atomic
from jobs.arguments import Parser, open_store, root_flag, run_flag

PAGES = {"report": "report.html", "claims": "lab.html"}
"""The stages that write a page, and its name."""


def main(argv: Sequence[str]) -> int:
    """Exit status 0: here it is; 1: it is damaged or no browser opens; 2: there is none, or bad input."""
    parser = Parser(prog="salon report", description=__doc__)
    root_flag(parser)
    run_flag(parser, text="name of a run (default: the newest that has a report)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="copy the report to FILE")
    parser.add_argument("--open", action="store_true", help="open it in the browser")
    parsed = parser.parse_args(list(argv))
    run, artifact = find(open_store(parsed.root), name=parsed.run)
    try:
        path = artifact.weights() / PAGES[artifact.record.stage]
    except DamagedFile as error:
        print(f"salon report: {error}", file=sys.stderr)
        return 1
    if parsed.output is not None:
        path = copy(path, parsed.output)
    print(path)
    print(f"report of run {run}", file=sys.stderr)
    if parsed.open and not webbrowser.open(path.resolve().as_uri()):
        print(f"salon report: no browser can be started here; open {path} yourself", file=sys.stderr)
        return 1
    return 0


def find(store: Store, *, name: str | None) -> tuple[str, Artifact]:
    """The run's name and its report; raises ConfigError naming what is missing and the command that makes it."""
    newest = run_named(store, name)
    for run in [newest] if name else reversed(read_runs(store).readable):
        artifact = _report_of(store, run)
        if artifact is not None:
            return run["name"], artifact
    recipe = newest.get("recipe") or "RECIPE"
    raise ConfigError(
        f"run {newest['name']} ({newest.get('status', 'unknown')}) has no finished report; "
        f"complete it: salon run {recipe} --root {store.root}"
    )


def _report_of(store: Store, run: dict[str, Any]) -> Artifact | None:
    for outcome in nodes_of(run, tuple(PAGES)).values():
        directory = store.place(outcome["stage"], outcome["key"])
        if (record := read_record(directory)) is not None:
            return Artifact(directory=directory, record=record)
    return None


def copy(path: Path, output: Path) -> Path:
    """Copies under the final name or not at all; raises ConfigError where nothing can be written."""
    target = output / path.name if output.is_dir() else output
    try:
        write_atomic(target, path.read_bytes())
    except OSError as error:
        raise ConfigError(f"--output {output}: {error.strerror or error}; give a file in a folder that exists") from error
    return target


if __name__ == "__main__":
    from jobs.cli import guarded

    sys.exit(guarded("report", sys.argv[1:]))
