"""`python -m tests.benchmarks.run [NAME …]`: runs the benchmarks and prints each figure beside its bar.

`cache_law` takes hours and `search` some minutes: they run only by their names. `--recipes A,B` and `--flags a,b` limit
`cache_law`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

NAMES = (
    "arena",
    "examples",
    "rows",
    "clips_memory",
    "imports",
    "plan",
    "render",
    "render_diffusers",
    "judge",
    "served_juror",
    "jury",
    "tune_step",
    "dpo_step",
    "two_workers",
    "gpu_tune",
    "gpu_render",
    "gpu_judge",
    "miniature",
)

LONG = ("cache_law", "search")
"""Those that run only by their name."""


def main(arguments: Sequence[str]) -> int:
    """Exit status 1 where a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.run", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"all but {', '.join(LONG)} by default")
    parser.add_argument("--recipes", type=_names, default=(), metavar="A,B,…", help="of cache_law; all by default")
    parser.add_argument("--flags", type=_names, default=(), metavar="A,B,…", help="of cache_law; all by default")
    parsed = parser.parse_args(arguments)
    for name in parsed.names:
        if name not in (*NAMES, *LONG):
            print(f"unknown benchmark {name!r}; known are {', '.join((*NAMES, *LONG))}", file=sys.stderr)
            return 2
    sys.path.append(str(Path(__file__).parents[1]))  # of the tests' own helpers, which import one another as `support`
    missed = 0
    for name in parsed.names or NAMES:
        options = {"recipes": parsed.recipes, "flags": parsed.flags} if name == "cache_law" else {}
        for result in import_module(f"tests.benchmarks.{name}").run(**options):
            print(result.line(), flush=True)
            missed += not result.holds
    return 1 if missed else 0


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
