"""`salon gc`: removes artifacts that no run uses, superseded ones, and what killed runs left; says how many bytes."""

from __future__ import annotations

import sys

from infra.store.garbage import Collector, remove
from jobs.arguments import Parser, open_store, positive, root_flag
from jobs.show import size


def main(argv: list[str]) -> int:
    """Exit status 0; 2: bad input."""
    parser = Parser(prog="salon gc", description=__doc__)
    root_flag(parser)
    parser.add_argument("--dry-run", action="store_true", help="only list what would be removed")
    parser.add_argument(
        "--keep-runs", metavar="N", type=positive, help="keep the newest N runs and what they use (default: all)"
    )
    parser.add_argument("--unfinished", action="store_true", help="remove unfinished work, too, which a run could resume")
    parsed = parser.parse_args(argv)
    store = open_store(parsed.root)
    collector = Collector(store, keep_runs=parsed.keep_runs, unfinished=parsed.unfinished)
    if collector.runs.broken:
        print("no artifact is removed, since what an unreadable run uses is not known; repair or delete that file")
    freed = 0
    for waste in collector.waste():
        if not parsed.dry_run and not remove(store, waste):
            print(f"in use, kept: {waste.path.relative_to(store.root)}")
            continue
        freed += waste.bytes
        print(f"{size(waste.bytes):>10}  {waste.reason:<14}  {waste.path.relative_to(store.root)}")
    print(f"{'would free' if parsed.dry_run else 'freed'} {freed} bytes ({size(freed)})")
    return 0


if __name__ == "__main__":
    from jobs.cli import guarded

    sys.exit(guarded("gc", sys.argv[1:]))
