"""`salon explain STAGE`: what a stage's artifact is made of, and what it differs in from the one before it."""

from __future__ import annotations

import hashlib
import json
import sys
from typing import Any

from infra.dag.plan import differences, flatten
from infra.dag.source import ROOT, normalised
from infra.store.artifacts import Store
from infra.store.record import Record, read_record
from infra.store.runs import artifact_of, node_of, run_named
from jobs.arguments import Parser, open_store, root_flag, run_flag
from jobs.show import size


def main(argv: list[str]) -> int:
    """Exit status 0; 2: no such stage or run."""
    parser = Parser(prog="salon explain", description=__doc__)
    parser.add_argument("stage", help="a stage of the run, as salon show NAME lists them")
    run_flag(parser)
    root_flag(parser)
    parser.add_argument("--json", action="store_true", help="machine-readable")
    parsed = parser.parse_args(argv)

    store = open_store(parsed.root)
    outcome = node_of(run_named(store, parsed.run), parsed.stage)
    found = explanation(store, artifact_of(store, outcome).record)
    if parsed.json:
        print(json.dumps(found, indent=1))
    else:
        show(found)
    return 0


def explanation(store: Store, record: Record) -> dict[str, Any]:
    """All that is known of an artifact, and how it came to differ."""
    before = previous(store, record)
    return {
        "stage": record.stage,
        "key": record.key,
        "version": record.version,
        "digest": record.digest,
        "finished": record.finished,
        "seconds": record.seconds,
        "rows": record.rows,
        "error_rows": record.error_rows,
        "computed_rows": record.computed_rows,
        "reused_rows": record.reused_rows,
        "commit": record.commit,
        "identity": record.identity,
        "parents": {name: f"{p.stage}/{p.key}" for name, p in record.parents.items()},
        "changed_parents": changed_parents(store, record),
        "libraries": record.libraries,
        "metrics": record.metrics,
        "files": [{"name": name, "bytes": f.bytes, "rows": f.rows, "sha256": f.sha256} for name, f in record.every_file()],
        "previous": before.key if before else None,
        "differences": differences(before.identity, record.identity) if before else [],
        "source_changed": source_changed(record),
    }


def previous(store: Store, record: Record) -> Record | None:
    """The artifact of the same stage that was finished last before this one."""
    others = [found for found in map(read_record, store.folders(record.stage)) if found and found.key != record.key]
    earlier = [other for other in others if other.finished <= record.finished]
    return max(earlier, key=lambda other: other.finished, default=None)


def changed_parents(store: Store, record: Record) -> list[str]:
    """Parents whose content is no longer what this artifact was made from."""
    found = []
    for name, parent in record.parents.items():
        now = read_record(store.place(parent.stage, parent.key))
        if now is None or now.digest != parent.digest:
            found.append(name)
    return found


def source_changed(record: Record) -> list[str]:
    """Recorded source files that read otherwise now, comments and docstrings aside."""
    changed = []
    for name, then in record.source.items():
        path = ROOT / name
        now = hashlib.sha256(normalised(path.read_text()).encode()).hexdigest()[:16] if path.is_file() else ""
        if now != then:
            changed.append(name)
    return changed


def show(found: dict[str, Any]) -> None:
    """Prints what was found as text."""
    print(f"{found['stage']}/{found['key']}  version {found['version']}, digest {found['digest']}")
    rows = f"{found['rows']} rows: {found['computed_rows']} computed, {found['reused_rows']} taken over"
    print(f"finished {found['finished']} in {found['seconds']:.1f} s; {rows}, {found['error_rows']} quarantined")
    print(f"commit   {found['commit'] or 'unknown'}")
    _section("options", [f"{name} = {_value(value)}" for name, value in flatten(found["identity"]).items()])
    stale = found["changed_parents"]
    parents = found["parents"].items()
    _section("parents", [f"{name}: {key}" + (", changed since" if name in stale else "") for name, key in parents])
    _section("libraries", [f"{name} {version}" for name, version in found["libraries"].items()])
    _section("metrics", [f"{name} = {_value(value)}" for name, value in found["metrics"].items()])
    files = found["files"]
    listed = [f"{f['name']}  {f['rows']} rows, {size(f['bytes'])}, sha256 {f['sha256'][:12]}" for f in files[:20]]
    _section(f"files ({len(files)}, {size(sum(f['bytes'] for f in files))})", listed + (["…"] if len(files) > 20 else []))
    if found["previous"]:
        none = ["nothing in its identity"]
        _section(f"differs from the one before, {found['previous'][:8]}, in", found["differences"] or none)
    _section("source changed since", found["source_changed"])


def _value(value: Any) -> str:
    if isinstance(value, dict) and set(value) == {"stage", "key"}:
        return f"{value['stage']}/{value['key']}"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else f"{text[:199]}…"


def _section(title: str, entries: list[str]) -> None:
    if entries:
        print("\n  ".join([f"{title}:", *entries]))


if __name__ == "__main__":
    from jobs.cli import guarded

    sys.exit(guarded("explain", sys.argv[1:]))
