"""Stage `gate`: fails the run when trained-on measures rise while a held-out one falls."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from infra.config import ConfigError
from infra.dag.stage import Context, TableStage
from pipelines.schemas.evaluation import GateReason
from pipelines.stages.evaluate import Evaluate
from pipelines.stages.report import Report


class GateFailed(RuntimeError):
    """What was trained on rises while what never was falls: reward hacking. The message has the measures."""


class Gated(TableStage):
    """The evaluation's verdict in; its reasons out, or the pipeline fails, with evaluation and report to look at."""

    name: ClassVar = "gate"
    row: ClassVar = GateReason

    evaluate: Evaluate
    report: Report
    "Written before the gate is asked, since a failure is what one wants to read about."

    def run(self, context: Context) -> Iterator[GateReason]:
        """A row a measure that decided; raises GateFailed."""
        found = [one.metrics["gate"] for one in context.lineage() if one.key == self.evaluate.key and "gate" in one.metrics]
        if not found:
            raise ConfigError("gate: the evaluation's record has no verdict; compute it again with --force evaluate")
        verdict = found[0]
        if not verdict["passed"]:
            raise GateFailed(
                f"the gate does not pass: {'; '.join(verdict['reasons'])}. The report and the view evaluate show it. "
                "Lower the learning rate or the steps of tune, or raise its beta; gate.tolerance of evaluate says which "
                "fall is put up with"
            )
        for reason in verdict["reasons"]:
            yield GateReason(reason)
