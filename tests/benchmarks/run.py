"""`python -m tests.benchmarks.run [NAME …]`: runs the benchmarks and prints each figure beside its bar."""

from __future__ import annotations

import sys
from importlib import import_module

NAMES = (
    "arena",
    "examples",
    "rows",
    "imports",
    "plan",
    "render",
    "judge",
    "jury",
    "tune_step",
    "dpo_step",
    "two_workers",
    "gpu_tune",
    "miniature",
)


def main(names: list[str]) -> int:
    """Exit status 1 where a bar is missed."""
    for name in names:
        if name not in NAMES:
            print(f"unknown benchmark {name!r}; known are {', '.join(NAMES)}", file=sys.stderr)
            return 2
    missed = 0
    for name in names or NAMES:
        for result in import_module(f"tests.benchmarks.{name}").run():
            print(result.line(), flush=True)
            missed += not result.holds
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
