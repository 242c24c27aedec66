"""Stage judge: which questions are asked."""

import pytest

from infra.dag.plan import CachePolicy, Planner
from infra.dag.source import Sources
from infra.dag.stage import topological
from infra.store.artifacts import Store
from pipelines.recipes.miniature import miniature


@pytest.mark.parametrize("node", ["render", "render[evaluation]", "score[evaluation]", "judge[evaluation]"])
def test_the_number_of_cells_is_foreseen_without_making_them(node, tmp_path):
    planner = Planner(Store(tmp_path), CachePolicy(), Sources(None))
    stages = {stage.node: stage for stage in topological(miniature(prompts=6, evaluation=9, policy_samples=3))}
    assert stages[node].cell_count(planner.foreseen) == stages[node].cells(planner.foreseen).num_rows > 0


def test_the_number_of_votes_is_foreseen_without_making_their_cells(tmp_path):
    planner = Planner(Store(tmp_path), CachePolicy(), Sources(None))
    stages = {stage.node: stage for stage in topological(miniature(prompts=6, evaluation=6, policy_samples=3))}
    judge = stages["judge"]
    assert judge.cell_count(planner.foreseen) == judge.cells(planner.foreseen).num_rows > 0
    plans = {name: planner.plan(stage) for name, stage in stages.items()}
    assert (plans["judge"].rows, plans["judge"].to_do) == (judge.cell_count(planner.foreseen),) * 2
