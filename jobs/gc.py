"""`salon gc`: removes artifacts that no run uses, superseded ones, and what killed runs left; says how many bytes."""

from __future__ import annotations

import sys
from argparse import ArgumentTypeError
from pathlib import Path

from infra.config import ConfigError
from infra.store.artifacts import Store
from infra.store.garbage import Collector, remove
from jobs.arguments import DEFAULT_ROOT, Parser
from jobs.show import size


def main(argv: list[str]) -> int:
    """Exit status 0; 2: bad input."""
    parser = Parser(prog="salon gc", description=__doc__)
    parser.add_argument("--root", type=Path, default=Path(DEFAULT_ROOT), help="folder of artifacts (default %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="only say what would go")
    parser.add_argument("--keep-runs", metavar="N", type=_positive, help="the newest N and what they use (default: all)")
    parser.add_argument("--unfinished", action="store_true", help="remove work that a run could resume, too")
    parsed = parser.parse_args(argv)
    store = Store(parsed.root)
    if not (store.root / "artifacts").is_dir():
        raise ConfigError(f"{store.root} is no store; give its folder with --root")
    freed = 0
    for waste in Collector(store, keep_runs=parsed.keep_runs, unfinished=parsed.unfinished).waste():
        if not parsed.dry_run and not remove(store, waste):
            print(f"in use, kept: {waste.path.relative_to(store.root)}")
            continue
        freed += waste.bytes
        print(f"{size(waste.bytes):>10}  {waste.reason:<14}  {waste.path.relative_to(store.root)}")
    print(f"{'would free' if parsed.dry_run else 'freed'} {freed} bytes ({size(freed)})")
    return 0


def _positive(text: str) -> int:
    """A number of runs."""
    if not text.isdigit() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is no number of runs; give 1 or more")
    return int(text)


if __name__ == "__main__":
    from jobs.cli import guarded

    sys.exit(guarded("gc", sys.argv[1:]))
