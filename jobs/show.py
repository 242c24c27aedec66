"""`salon show [RUN]`: the runs of a store; with a name, that run's stages with keys, rows, errors, seconds and sizes."""

from __future__ import annotations

import json
import sys
from typing import Any

from infra.store.artifacts import Store, damaged_files
from infra.store.record import read_record
from infra.store.runs import newest_run, read_runs, run_named
from jobs.arguments import Parser, open_store, root_flag, run_name
from jobs.progress import duration
from jobs.sql import lines


def main(argv: list[str]) -> int:
    """Exit status 0; 2: no such run."""
    parser = Parser(prog="salon show", description=__doc__)
    parser.add_argument("run", nargs="?", type=run_name, help="name of a run (default: list all runs)")
    root_flag(parser)
    parser.add_argument("--json", action="store_true", help="machine-readable")
    parsed = parser.parse_args(argv)

    store = open_store(parsed.root)
    if parsed.run is None:
        newest_run(store)
        found = [summary(run) for run in read_runs(store).readable]
    else:
        found = [stage_row(store, outcome) for outcome in run_named(store, parsed.run)["stages"]]
    if parsed.json:
        print(json.dumps(found, indent=1))
    elif found:
        print("\n".join(lines(list(found[0]), [[_short(n, v) for n, v in row.items()] for row in found])))
    else:
        print(f"run {parsed.run} has finished no stage")
    return 0


def summary(run: dict[str, Any]) -> dict[str, Any]:
    """One line of the list of runs."""
    stages = run["stages"]
    return {
        "run": run["name"],
        "status": run["status"],
        "started": run["started"],
        "stages": len(stages),
        "computed": sum(stage["state"] == "computed" for stage in stages),
        "rows": sum(stage["rows"] for stage in stages),
        "errors": sum(stage["error_rows"] for stage in stages),
        "commit": run["commit"],
        "arguments": run["arguments"],
    }


def stage_row(store: Store, outcome: dict[str, Any]) -> dict[str, Any]:
    """One stage of a run, as its artifact stands now."""
    directory = store.place(outcome["stage"], outcome["key"])
    record = read_record(directory)
    row = {"node": outcome["node"], "key": outcome["key"], "state": outcome["state"]}
    row |= {"rows": outcome["rows"], "errors": outcome["error_rows"], "seconds": outcome["seconds"], "bytes": None}
    if record is None:
        return row | {"artifact": "removed or being computed"}
    row |= {"rows": record.rows, "errors": record.error_rows, "seconds": record.seconds}
    row["bytes"] = sum(file.bytes for _, file in record.every_file())
    return row | {"artifact": "damaged" if damaged_files(directory, record) else "whole"}


def _short(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name == "bytes":
        return size(value)
    if name in ("commit", "key"):
        return value[:8]
    if name == "started":
        return value[:19].replace("T", " ")
    if name == "seconds":
        return f"{value:.1f}" if value < 60 else duration(value)
    if name == "arguments":
        return " ".join(f"--{key.replace('_', '-')} {given}" for key, given in value.items())
    return value


def size(number: float) -> str:
    """512 B, 4.2 KiB, 1.3 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


if __name__ == "__main__":
    from jobs.cli import guarded

    sys.exit(guarded("show", sys.argv[1:]))
