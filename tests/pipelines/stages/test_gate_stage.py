"""The stage `gate`: a pipeline that hacked its reward ends in failure, after everything else is there to look at."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from infra.config import ConfigError
from infra.dag.stage import Lineage, topological
from pipelines.recipes.miniature import miniature
from pipelines.schemas.evaluation import GateReason
from pipelines.stages.gate import GateFailed


@dataclass
class Context:
    """The part of a context that the stage uses."""

    ancestors: list[Lineage] = field(default_factory=list)

    def lineage(self) -> list[Lineage]:
        return self.ancestors


def asked(**metrics):
    made = miniature()
    evaluated = Lineage("evaluate", "evaluate", made.evaluate.key, "hit", 1.0, 60, 0, 0, (), metrics)
    context: Any = Context([evaluated])
    return list(made.run(context))


def test_a_verdict_that_passes_leaves_its_reasons():
    reasons = ["held-out strict (+0.0710) does not fall", "held-out partial does not fall"]
    assert asked(gate={"passed": True, "reasons": reasons}) == [GateReason(reason) for reason in reasons]


def test_reward_hacking_ends_the_pipeline_with_the_measures_and_the_remedy():
    with pytest.raises(GateFailed, match=r"trained-on jury rises; held-out strict falls.*learning rate"):
        asked(gate={"passed": False, "reasons": ["trained-on jury rises", "held-out strict falls"]})


def test_an_evaluation_without_a_verdict_does_not_pass():
    with pytest.raises(ConfigError, match="no verdict"):
        asked()


def test_the_gate_comes_last_so_that_a_failure_can_be_read_about():
    assert [stage.name for stage in topological(miniature())][-2:] == ["report", "gate"]
