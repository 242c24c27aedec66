"""Stage `pretrain`: a generator of the miniature world from nothing, with the snapshots that make a roster."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from infra.dag.stage import Context, Inputs, TableStage
from pipelines.miniature.making.pretrain import Pretraining, pretrain
from pipelines.miniature.rows import TrainingStep

ROW_EVERY = 100  # steps per row


class PretrainGenerator(TableStage):
    """Nothing in; the loss every hundred steps out, one folder of weights per snapshot. A killed training goes on."""

    name: ClassVar = "pretrain"
    row: ClassVar = TrainingStep

    options: Pretraining

    def run(self, context: Context) -> Iterator[TrainingStep]:
        """Rows in the order of steps; those before a kill are in the checkpoint's past and have no row."""
        losses: list[float] = []
        rows: list[TrainingStep] = []

        def told(step: int, steps: int, loss: float) -> None:
            losses.append(loss)
            if step % ROW_EVERY == 0:
                rows.append(TrainingStep(step, sum(losses) / len(losses)))
                losses.clear()
            context.progress(step, steps, f"loss {loss:.4f}")

        pretrain(self.options, out=context.weights_out, scratch=context.scratch, on_step=told)
        yield from rows

    def expected_rows(self, inputs: Inputs) -> int:
        """One every hundred steps."""
        del inputs
        return self.options.steps // ROW_EVERY
