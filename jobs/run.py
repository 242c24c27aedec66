"""`salon run RECIPE`: computes what is missing; what is finished is never done again."""

from __future__ import annotations

import shlex
import sys

from actors.executor import RayExecutor
from infra.dag.plan import Policy
from infra.dag.run import Runner, StageFailed
from infra.dag.selection import Selection
from infra.store.artifacts import Store
from jobs.arguments import Parser, build, common
from jobs.progress import Console


def main(argv: list[str]) -> int:
    """Exit status 0: all there; 1: a stage failed; 2: bad input; 130: interrupted."""
    parser = Parser(prog="salon run", description=__doc__)
    common(parser)
    parser.add_argument("--address", default="local", help="Ray cluster to use; by default one of its own, or RAY_ADDRESS")
    parser.add_argument("--run-name", default="", help="name of the run, for salon sql and salon show")
    parsed, target, values = build(parser, argv)
    selection = Selection(parsed.only, parsed.start, parsed.until, tuple(parsed.force))
    policy = Policy(retry_errors=parsed.retry_errors, strict_code=parsed.strict_code, verify=parsed.verify)
    console = Console()
    again = [word for word in argv if word != "--retry-errors"]
    resume = f"salon run {shlex.join(again)}"
    with RayExecutor(parsed.address, workers=target.resources.workers) as executor:
        runner = Runner(
            store=Store(parsed.root),
            executor=executor,
            progress=console,
            policy=policy,
            recipe=parsed.recipe,
            arguments=values,
            name=parsed.run_name,
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
