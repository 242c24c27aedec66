"""Stage `report`: one self-contained HTML file that opens offline."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from pydantic import Field

from infra.dag.stage import Context, Stage, TableStage
from pipelines.schemas.evaluation import Page
from pipelines.stages.arena import Arena
from pipelines.stages.evaluate import Evaluate
from pipelines.stages.label import Label
from pipelines.stages.reward import Reward
from pipelines.stages.tune import Tune

FILE = "report.html"


class Report(TableStage):
    """Everything that was measured in; one page out, under the artifact's weights folder."""

    name: ClassVar = "report"
    version: ClassVar = 1  # raise when the page's template or style changes: they are not Python source
    row: ClassVar = Page

    labels: Label
    arena: Arena
    reward: Reward
    tune: Tune
    evaluate: Evaluate
    gallery_per_task: int = Field(4, ge=1, le=24)
    "Captions a task in the before/after gallery, drawn by hash."

    def run(self, context: Context) -> Iterator[Page]:
        """See the class."""
        from pipelines.reporting.page import render_report

        page = render_report(self._gathered(context)).encode()
        (context.weights_out / FILE).write_bytes(page)
        yield Page(path=FILE, bytes=len(page))

    def _gathered(self, context: Context) -> Any:
        from infra.dag.source import commit, libraries
        from pipelines.reporting import gather
        from pipelines.reporting.data import ReportData

        lineage = context.lineage()
        metrics = {ancestor.key: ancestor.metrics for ancestor in lineage}
        preferences = context.table(self.labels, ["choice", "agreement", "votes_unparsable"])
        matches = context.table(self.arena, ["generator_a", "generator_b", "choice"], name="matches")

        def rows(parent: Stage, name: str | None = None) -> list[Any]:
            return list(context.rows(parent, name=name))

        return ReportData(
            nodes=gather.nodes(self, lineage),
            ratings=rows(self.arena),
            duels=gather.duels(matches),
            gaps=context.table(self.tune.examples, ["gap"])["gap"].drop_null().to_pylist(),
            jurors=rows(self.labels, "jurors"),
            labels=gather.labels(preferences),
            reward_accuracy=sorted(rows(self.reward), key=lambda row: row.t),
            reward_steps=rows(self.reward, "curve"),
            tune_steps=rows(self.tune),
            summary=rows(self.evaluate, "summary"),
            gallery=gather.gallery(context, self.evaluate, per_task=self.gallery_per_task),
            gate=metrics.get(self.evaluate.key, {}).get("gate"),
            libraries=libraries(),
            commit=commit(),
            target=self.key,
        )
