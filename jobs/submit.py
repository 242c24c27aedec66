"""Runs a recipe as a job of a Ray cluster, shows its output, and ends with its exit status.

The source is uploaded, and the job runs in that copy: --root must be an absolute path on a disk that all machines share.
All flags are checked here first. While a job runs, submitting the same again follows that job.
"""

from __future__ import annotations

import logging
import shlex
import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.cluster.submission import Cluster, Submission, require_small, words_without
from infra.config import ConfigError
from infra.dag.source import ROOT, commit
from jobs.arguments import Parser, build, common, run_name_flag


def own_flags() -> Parser:
    """Flags of submit itself; the others go to salon run."""
    own = Parser(add_help=False)
    group = own.add_argument_group("submission")
    group.add_argument("--address", default="http://127.0.0.1:8265", help="the cluster's dashboard (default %(default)s)")
    which = "interpreter on the cluster; absolute where ray start ran outside its environment (default %(default)s)"
    group.add_argument("--python", default="python", help=which)
    group.add_argument("--no-wait", action="store_true", help="do not follow the job")
    group.add_argument("--submission-id", default="", help="name of the job (default: a hash of all that determines it)")
    group.add_argument("--working-dir", type=Path, default=ROOT, help="folder to upload (default: Salon's source)")
    group.add_argument("--env", metavar="NAME=VALUE", action="append", default=[], help="environment variable of the job")
    return own


def main(argv: list[str]) -> int:
    """Exit status: the job's own; 2: bad input; 130: no longer followed."""
    own = own_flags()
    mine, rest = own.parse_known_args(argv)
    parser = Parser(prog="salon submit", description=__doc__, formatter_class=RawDescriptionHelpFormatter, parents=[own])
    common(parser)
    run_name_flag(parser)
    parsed, _, _ = build(parser, rest)
    if not parsed.root.is_absolute():
        raise ConfigError(f"--root {parsed.root} would lie in the job's copy of the source; give an absolute path")
    working_dir = mine.working_dir.resolve()
    require_small(working_dir)
    command = [mine.python, "-m", "jobs.run", *words_without(rest, ["--root"]), "--root", str(parsed.root)]
    submission = Submission(shlex.join(command), working_dir, variables(mine.env), mine.submission_id, commit())
    cluster = Cluster(mine.address)
    with _quiet():
        job, new = cluster.submit(submission)
    print(f"job {job} {'submitted' if new else 'is there already'}: {submission.entrypoint}", flush=True)
    stop = f"ray job stop --address {mine.address} {job}"
    if mine.no_wait:
        print(f"follow it with: ray job logs --follow --address {mine.address} {job}\nstop it with: {stop}")
        return 0
    try:
        code = cluster.follow(job, _write)
        if code:
            print(f"job {job} ended with exit code {code}\nresume with: salon submit {shlex.join(argv)}")
        return code
    except KeyboardInterrupt:
        print(f"\nno longer following; the job goes on. Stop it with: {stop}")
        return 130


@contextmanager
def _quiet() -> Iterator[None]:
    """Warnings are not shown meanwhile: Ray tells of every file that it leaves out of a package."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def variables(given: list[str]) -> dict[str, str]:
    """Environment of the job; raises ConfigError for what is not NAME=VALUE."""
    found: dict[str, str] = {}
    for word in given:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise ConfigError(f"--env {word}: give NAME=VALUE")
        found[name] = value
    return found


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    from jobs.cli import guarded

    sys.exit(guarded("submit", sys.argv[1:]))
