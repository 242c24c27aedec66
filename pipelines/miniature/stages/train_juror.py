"""Stage `train_juror`: a small vision-language juror from nothing, or from another juror's weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from pydantic import Field

from infra.dag.stage import Context, TableStage
from pipelines.miniature.making.juror_training import JurorTraining, train_juror
from pipelines.miniature.rows import TrainingStep
from pipelines.miniature.stages.pretrain import ROW_EVERY


class TrainJuror(TableStage):
    """Nothing (or the juror it starts from) in; the loss out, the juror's folder as weights. A killed training goes on."""

    name: ClassVar = "train_juror"
    row: ClassVar = TrainingStep

    called: str = Field(min_length=1)
    "Name of the juror, and of its folder in the zoo."
    options: JurorTraining
    start: TrainJuror | None = None
    "The juror whose weights it starts from."

    def run(self, context: Context) -> Iterator[TrainingStep]:
        """Rows in the order of steps."""
        losses: list[float] = []
        rows: list[TrainingStep] = []

        def told(step: int, loss: float) -> None:
            losses.append(loss)
            if (step + 1) % ROW_EVERY == 0:
                rows.append(TrainingStep(step + 1, sum(losses) / len(losses)))
                losses.clear()
            context.progress(step + 1, self.options.steps, f"loss {loss:.4f}")

        start = None if self.start is None else context.weights(self.start)
        train_juror(self.options, out=context.weights_out, scratch=context.scratch, start=start, on_step=told)
        yield from rows
