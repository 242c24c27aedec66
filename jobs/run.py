"""Computes the stages of a recipe that the store does not hold yet.

What is finished is never computed again: to resume an interrupted run, give the same command again.
"""

from __future__ import annotations

import shlex
import sys

from actors.executor import RayExecutor
from infra.cluster.connection import require_usable
from infra.dag.failed import StageFailed
from infra.dag.plan import CachePolicy
from infra.dag.run import Runner
from infra.dag.selection import Selection
from infra.dag.stage import topological
from infra.store.artifacts import Store
from jobs.arguments import Parser, address_flag, build, common, require_writable, run_name_flag
from jobs.progress import Console

WORKING_DIR = "working_dir_files"
"""The folder in which Ray unpacks the working directories of jobs."""


def main(argv: list[str]) -> int:
    """Exit status 0: all there; 1: a stage failed; 2: bad input; 130: interrupted."""
    parser = Parser(prog="salon run", description=__doc__)
    common(parser)
    address_flag(parser)
    run_name_flag(parser)
    parsed, target, values = build(parser, argv)
    selection = Selection(parsed.only, parsed.start, parsed.until, tuple(parsed.force))
    chosen = selection.of(topological(target))
    require_writable(parsed.root)
    for stage in chosen:
        stage.require_here()
    resources = [stage.resources for stage in chosen]
    require_usable(parsed.address, resources)
    policy = CachePolicy(retry_errors=parsed.retry_errors, strict_code=parsed.strict_code, verify=parsed.verify)
    console = Console()
    if WORKING_DIR in parsed.root.absolute().parts:
        console.said(
            f"--root {parsed.root} lies in this job's copy of the source, which Ray removes; give an absolute path on a "
            "disk that all machines share"
        )
    again = [word for word in argv if word != "--retry-errors"]
    resume = f"salon run {shlex.join(again)}"
    with RayExecutor(parsed.address, resources=resources) as executor:
        runner = Runner(
            store=Store(parsed.root),
            executor=executor,
            progress=console,
            policy=policy,
            recipe=parsed.recipe,
            arguments=values,
            name=parsed.run_name or "",
        )
        try:
            runner.run(target, selection)
        except StageFailed as error:
            console.said(f"salon run: {error}\nresume with: {resume}")
            return 1
        except KeyboardInterrupt:
            console.said(f"\ninterrupted; what is finished is kept\nresume with: {resume}")
            return 130
    console.said(f'run {runner.name}: salon report --root {parsed.root}, salon sql --root {parsed.root} "SELECT …"')
    return 0


if __name__ == "__main__":
    from jobs.cli import guarded

    sys.exit(guarded("run", sys.argv[1:]))
