"""Says of every stage of a recipe whether the store holds it (hit), a part of it (partial) or nothing of it (miss).

It also says how many rows are to do, and why. It computes nothing, and needs neither weights nor pairs.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from infra.config import ConfigError
from infra.dag.plan import HIT, CachePolicy, NodePlan, Planner
from infra.dag.selection import Selection
from infra.dag.source import Sources
from infra.dag.stage import Stage, topological
from infra.store.artifacts import Store
from infra.store.tables import write_atomic
from jobs.arguments import Parser, build, common
from jobs.progress import describe, source_note

NOTHING_TO_DO, SOMETHING_TO_DO = 0, 3


def main(argv: list[str]) -> int:
    """Exit status 0: nothing to do; 3: something; 2: bad input."""
    parser = Parser(prog="salon plan", description=__doc__)
    common(parser)
    parser.add_argument("--json", action="store_true", help="machine-readable")
    parser.add_argument("--svg", metavar="FILE", type=Path, help="draw the DAG of the recipe into FILE; plan nothing")
    parsed, target, _ = build(parser, argv)
    order = topological(target)
    _spare_pandas()
    if parsed.svg is not None:
        return draw(order, parsed.svg)
    selection = Selection(parsed.only, parsed.start, parsed.until, tuple(parsed.force))
    chosen = selection.of(order)
    policy = CachePolicy(selection.forced(order), parsed.retry_errors, parsed.strict_code, parsed.verify)
    sources = Sources(parsed.root / "cache" / "source.json" if parsed.root.is_dir() else None)
    planner = Planner(store=Store(parsed.root), policy=policy, sources=sources)
    plans = [plan for stage, plan in ((s, planner.plan(s)) for s in order) if stage in chosen]
    with contextlib.suppress(OSError):  # it only saves time, and a store may be read-only here
        sources.save()
    if parsed.json:
        print(json.dumps([asdict(plan) for plan in plans], indent=1))
    else:
        show(plans)
    return NOTHING_TO_DO if all(plan.state == HIT for plan in plans) else SOMETHING_TO_DO


def _spare_pandas() -> None:
    """Makes the first array without pandas, which pyarrow imports for it where it can: a fifth of the command's time.

    Whoever asks for pandas later gets it.
    """
    import pyarrow as pa

    if "pandas" not in sys.modules:
        with _hidden("pandas"):
            pa.array([None])


@contextlib.contextmanager
def _hidden(module: str) -> Iterator[None]:
    """Inside, the module cannot be imported."""

    class Hidden:
        """Finds nothing, and lets nobody else find the module."""

        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            del path, target
            if name == module:
                raise ModuleNotFoundError(f"{name} is not needed here", name=name)

    hidden = Hidden()
    sys.meta_path.insert(0, hidden)
    try:
        yield
    finally:
        sys.meta_path.remove(hidden)


def draw(order: Sequence[Stage], path: Path) -> int:
    """Writes the picture of a DAG; raises ConfigError where it cannot be written."""
    from pipelines.reporting.dag_figure import drawing

    try:
        write_atomic(path, drawing(order).encode())
    except OSError as error:
        raise ConfigError(f"--svg {path}: {error.strerror or error}; give a file in a folder that exists") from error
    print(path)
    return NOTHING_TO_DO


def show(plans: list[NodePlan]) -> None:
    """A line a stage, then where source has changed."""
    for plan in plans:
        print(f"{plan.node:<12} {plan.key[:8]}  {describe(plan)}")
    for plan in plans:
        if note := source_note(plan):
            print(note)
    todo = sum(plan.state != HIT for plan in plans)
    print(f"{todo} of {len(plans)} stages to do" if todo else "nothing to do")


if __name__ == "__main__":
    from jobs.cli import guarded

    sys.exit(guarded("plan", sys.argv[1:]))
