"""The stage `gate`: a pipeline that hacked its reward ends in failure, after everything else is there to look at."""

from dataclasses import dataclass
from typing import Any

import pytest

from infra.config import ConfigError
from infra.dag.stage import topological
from pipelines.recipes.miniature import miniature
from pipelines.schemas.evaluation import GateReason
from pipelines.stages.gate import GateFailed


@dataclass
class Context:
    """The part of a context that the stage uses."""

    reasons: list[GateReason]

    def rows(self, parent, *, name):
        assert (parent.name, name) == ("evaluate", "gate")
        return iter(self.reasons)


def asked(*reasons):
    context: Any = Context([GateReason(*reason) for reason in reasons])
    return list(miniature().run(context))


def test_verdicts_that_pass_leave_their_reasons():
    reasons = [
        ("tuned", True, "held-out strict (+0.0710) does not fall"),
        ("other", True, "held-out partial does not fall"),
    ]
    assert asked(*reasons) == [GateReason(*reason) for reason in reasons]


def test_reward_hacking_by_one_arm_ends_the_run_with_the_measures_and_the_remedy():
    with pytest.raises(GateFailed, match=r"pass tuned: trained-on jury rises; held-out strict falls.*learning rate"):
        asked(
            ("other", True, "held-out strict does not fall"),
            ("tuned", False, "trained-on jury rises"),
            ("tuned", False, "held-out strict falls"),
        )


def test_an_evaluation_without_a_verdict_does_not_pass():
    with pytest.raises(ConfigError, match="no verdict"):
        asked()


def test_the_gate_comes_last_so_that_a_failure_can_be_read_about():
    assert [stage.name for stage in topological(miniature())][-2:] == ["report", "gate"]
