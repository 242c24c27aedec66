"""Stage `gate`: fails the run when trained-on measures rise while a held-out one falls.

It comes after the report, so that a failed evaluation is recorded, has views and has a page.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from infra.config import ConfigError
from infra.dag.stage import Context, TableStage
from pipelines.schemas.evaluation import GateReason
from pipelines.stages.evaluate import Evaluate
from pipelines.stages.report import Report


class GateFailed(RuntimeError):
    """A trained-on measure rose while a held-out one fell: reward hacking. The message names the measures."""


class ApplyGate(TableStage):
    """The evaluation's verdicts in; their reasons out, or the run fails with evaluation and report left to look at."""

    name: ClassVar = "gate"
    row: ClassVar = GateReason

    evaluate: Evaluate
    report: Report
    "Written before the gate is asked, so that a failure can be read about."

    def run(self, context: Context) -> Iterator[GateReason]:
        """One row for each measure that decided; raises GateFailed."""
        reasons: list[GateReason] = list(context.rows(self.evaluate, name="gate"))
        if not reasons:
            raise ConfigError("gate: the evaluation has no verdict; compute it again with --force evaluate")
        failed = [reason for reason in reasons if not reason.passed]
        if failed:
            arms = ", ".join(dict.fromkeys(reason.arm for reason in failed))
            raise GateFailed(
                f"the gate does not pass {arms}: {'; '.join(reason.reason for reason in failed)}. The report and the view "
                "evaluate show it. Lower the learning rate or the steps of tune, or raise its beta; gate.tolerance of "
                "evaluate says which fall is tolerated"
            )
        yield from reasons
