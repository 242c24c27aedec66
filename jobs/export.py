"""`salon export FORMAT OUT`: the pairs of a run, judged or imported, in one of the field's formats.

`salon export run OUT` writes the whole run: the pairs as a data set with a card, every adapter or model that it trained
with its card, the report, and a README.md with what the evaluation measured.

OUT is a new folder. The command names what the format cannot hold; ties are left out and counted if it has none.
"""

from __future__ import annotations

import sys
from argparse import Namespace

from infra.config import ConfigError
from infra.store.runs import run_named
from jobs.arguments import Parser, new_folder, open_store, root_flag, run_flag
from pipelines.exchange.formats import FORMATS, format_named, written_names
from pipelines.exchange.judged import judged_of, write_judged
from pipelines.exchange.whole_run import write_run

WHOLE = "run"
"""What the first word says to write: everything, and not the pairs alone."""


def whole(parsed: Namespace) -> int:
    """Writes everything that is worth keeping of a run; exit status 0."""
    for flag, given in {"--map": parsed.map, "--labels": parsed.labels}.items():
        if given:
            raise ConfigError(f"{flag} is about the pairs in one format; leave it out, or give a format instead of {WHOLE}")
    store = open_store(parsed.root)
    run = run_named(store, parsed.run)
    contents = write_run(store, run, parsed.out)
    print(f"run {run['name']} written to {parsed.out}")
    for line in contents:
        print(f"  {line}")
    return 0


def main(argv: list[str]) -> int:
    """Exit status 0; 2: an unknown format or run, a folder that is there, media the format cannot hold."""
    parser = Parser(prog="salon export", description=__doc__)
    parser.add_argument("format", help=f"{WHOLE}, or one of {', '.join(FORMATS)}")
    parser.add_argument("out", type=new_folder, help="the folder to write, which must not be there yet")
    names = "a column's name in the format and its name in the files"
    parser.add_argument("--map", metavar="OLD=NEW", action="extend", nargs="+", default=[], help=names)
    run_flag(parser, text="name of a run (default: the newest that has labels)")
    parser.add_argument("--labels", metavar="NODE", help="which labels, where a run has several")
    root_flag(parser)
    parsed = parser.parse_args(argv)
    if parsed.format == WHOLE:
        return whole(parsed)
    kind = format_named(parsed.format)
    renamed = written_names(parsed.map, format=kind.name, flag="--map")
    found = judged_of(open_store(parsed.root), parsed.run, parsed.labels)
    write_judged(found, parsed.out, format=kind.name, renamed=renamed)
    print(f"{found.written} pairs written to {parsed.out}; not in format {kind.name}: {kind.silent}")
    if found.ties:
        print(f"{found.ties} ties left out, since format {kind.name} has none")
    return 0


if __name__ == "__main__":
    from jobs.cli import guarded

    sys.exit(guarded("export", sys.argv[1:]))
