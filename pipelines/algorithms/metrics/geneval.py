"""GenEval's overall score: the mean of the task accuracies, not of the pictures (Ghosh et al., 2023)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from infra.config import ConfigError

TASKS = ("single", "two", "counting", "colours", "position", "attribution")
"""The six tasks, in the order of the paper's table."""


def task_accuracies(tasks: Sequence[str], *, correct: Sequence[bool]) -> dict[str, float]:
    """Accuracy of each task over its pictures, in the order of `TASKS`."""
    seen: dict[str, list[bool]] = defaultdict(list)
    for task, passed in zip(tasks, correct, strict=True):
        seen[task].append(bool(passed))
    strange = sorted(set(seen) - set(TASKS))
    if strange:
        raise ConfigError(f"GenEval has no task {strange[0]!r}; its tasks are {', '.join(TASKS)}")
    return {task: sum(seen[task]) / len(seen[task]) for task in TASKS if task in seen}


def overall(accuracies: dict[str, float]) -> float:
    """The mean of the six task accuracies; a missing task is an error, not a zero."""
    missing = [task for task in TASKS if task not in accuracies]
    if missing:
        raise ConfigError(f"GenEval overall needs all six tasks, missing {', '.join(missing)}; evaluate prompts of them")
    return sum(accuracies[task] for task in TASKS) / len(TASKS)
