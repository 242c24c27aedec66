"""Stage `report`: one self-contained HTML file that opens offline."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from pydantic import Field

from infra.dag.stage import Context, Stage, TableStage
from pipelines.reporting.choose import Evaluated
from pipelines.schemas.evaluation import Page
from pipelines.stages.arena import Arena
from pipelines.stages.evaluate import Evaluate
from pipelines.stages.label import Label
from pipelines.stages.reward import Reward
from pipelines.stages.sources import Trained
from pipelines.stages.tune import Tune

FILE = "report.html"


class Report(TableStage):
    """Everything that was measured in; one page out, under the artifact's weights folder."""

    name: ClassVar = "report"
    version: ClassVar = 2  # raise when the page's template or style changes: they are not Python source
    row: ClassVar = Page

    labels: Label
    arena: Arena
    reward: Reward | None = None
    tune: Trained
    evaluate: Evaluate
    gallery_per_task: int = Field(4, ge=1, le=24)
    "Captions per task in the gallery, drawn by hash."

    def run(self, context: Context) -> Iterator[Page]:
        """See the class."""
        from pipelines.reporting.page import render_report

        page = render_report(self._gathered(context)).encode()
        (context.weights_out / FILE).write_bytes(page)
        yield Page(path=FILE, bytes=len(page))

    def _gaps(self, context: Context) -> list[float]:
        """The arena's gaps of the pairs that were learnt from; none where no pairs were."""
        if not isinstance(self.tune, Tune):
            return []
        return context.table(self.tune.examples, ["gap"])["gap"].drop_null().to_pylist()

    def _gathered(self, context: Context) -> Any:
        from infra.dag.source import commit, libraries
        from pipelines.reporting import choose, gather
        from pipelines.reporting.data import ReportData

        preferences = context.table(self.labels, ["choice", "agreement", "votes_unparsable"])
        matches = context.table(self.arena, ["generator_a", "generator_b", "choice"], name="matches")

        pictures = self.evaluate.pictures

        def rows(parent: Stage, name: str | None = None) -> list[Any]:
            return list(context.rows(parent, name=name))

        return ReportData(
            nodes=gather.nodes(self, context.lineage()),
            ratings=rows(self.arena),
            duels=gather.duels(matches),
            gaps=self._gaps(context),
            jurors=rows(self.labels, "jurors"),
            labels=gather.labels(preferences),
            reward_accuracy=sorted(rows(self.reward), key=lambda row: row.t) if self.reward else [],
            reward_curve=rows(self.reward, "curve") if self.reward else [],
            tune_curve=rows(self.tune),
            summary=rows(self.evaluate),
            gallery=choose.gallery(
                evaluated(self.evaluate, context), context.lookup(pictures).take, per_task=self.gallery_per_task
            ),
            gate=rows(self.evaluate, "gate"),
            libraries=libraries(),
            commit=commit(),
            target=self.key,
        )


def evaluated(evaluate: Evaluate, context: Context) -> Evaluated:
    """The tables that an evaluation was made of, without pictures."""
    prompts = context.table(evaluate.prompts, ["id", "task"])
    jury = evaluate.jury
    return Evaluated(
        samples=context.table(evaluate.pictures, ["id", "prompt_id", "text", "generator", "sample", "seed"]),
        tasks=dict(zip(prompts["id"].to_pylist(), prompts["task"].to_pylist(), strict=True)),
        scores=[context.table(scores, ["sample", "scorer", "dimension", "value"]) for scores in evaluate.scores],
        preferences=None if jury is None else context.table(jury, ["picture_a", "picture_b", "choice"]),
        baseline=evaluate.baseline,
        medium=evaluate.pictures.medium,
    )
