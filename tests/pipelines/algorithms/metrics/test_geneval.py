"""GenEval's overall score is the mean of tasks, and published rows come out."""

import pytest

from infra.config import ConfigError
from pipelines.algorithms.metrics.geneval import TASKS, overall, task_accuracies


def test_the_overall_scores_of_the_paper_come_out():
    published = {  # Ghosh et al., 2023, Table 2: single, two, counting, colours, position, attribution; overall
        "SD 1.5": ([0.97, 0.38, 0.35, 0.76, 0.04, 0.06], 0.43),
        "SD XL": ([0.98, 0.74, 0.39, 0.85, 0.15, 0.23], 0.55),
    }
    for accuracies, score in published.values():
        found = overall(dict(zip(TASKS, accuracies, strict=True)))
        assert found == pytest.approx(score, abs=0.0101)


def test_a_task_counts_the_same_however_many_pictures_it_has():
    tasks = [task for task in TASKS for _ in range(1 if task == "position" else 9)]
    accuracies = task_accuracies(tasks, correct=[task != "position" for task in tasks])
    assert overall(accuracies) == pytest.approx(5 / 6)


def test_a_missing_task_is_an_error_and_not_a_zero():
    with pytest.raises(ConfigError, match="position"):
        overall({task: 1.0 for task in TASKS if task != "position"})


def test_an_unknown_task_is_refused():
    with pytest.raises(ConfigError, match="no task"):
        task_accuracies(["colors"], correct=[True])
