"""What the stages that train share: their data, how long a run is, one launch, and what is kept of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from actors.training.launch import Loop, OnReport, fit, here
from actors.training.options import TrainerOptions
from actors.training.trainer import EXPORT, PREVIEWS, TRACKED, Training, read_curve, train
from infra.dag.stage import Context, Stage, Unforeseeable
from pipelines.models.families.base import Family
from pipelines.schemas.curves import Curve, curve_rows
from pipelines.training.data import TrainingData

MANY_EPOCHS = 10
"""Above, preference tuning is reported to deteriorate (VideoAlign, appendix on Flow-DPO): plan, log and card warn."""


def run_length(options: TrainerOptions, examples: int | None, *, about: bool = False) -> str:
    """How long a run over so many examples is, for plan, log and card: "8000 steps, 5.1 epochs".

    `examples`: None where nobody knows yet; `about`: whether they are only expected.
    """
    if examples is None:
        return f"{options.epochs:g} epochs" if options.epochs is not None else f"{options.steps} steps"
    epochs = options.epochs_of(examples)
    told = f"{options.resolved(examples).steps} steps, {'about ' if about else ''}{epochs:.1f} epochs"
    if epochs > MANY_EPOCHS:
        told += f", which is many: above {MANY_EPOCHS}, tuning is known to deteriorate"
    return told


def foreseen_length(options: TrainerOptions, *, counted: Callable[[], int], expected: Callable[[], int | None]) -> str:
    """The same where examples may not be there yet: counted if they are, else as many as are expected."""
    try:
        return run_length(options, counted())
    except Unforeseeable:
        pass
    try:
        return run_length(options, expected(), about=True)
    except Unforeseeable:
        return run_length(options, None)


def placed_policy(policy: Family, encoders: Family, context: Context, *, stage: str) -> Family:
    """The policy with weights that any process can read; ConfigError where the latents are of another VAE."""
    placed = policy.placed(context)
    placed.refuse_latents_of(encoders.placed(context), stage=stage)
    return placed


def training_data(table: pa.Table, name: str, *, encoded: Stage, empty: str, context: Context) -> TrainingData:
    """Examples as workers read them, written to the stage's scratch folder; `empty`: id of the encoded empty text."""
    data = TrainingData(context.scratch.resolve() / f"{name}.arrow", context.lookup(encoded), empty)
    data.write(table)
    return data


def launched(
    stage: Stage, loop: Loop, job: Any, context: Context, *, name: str, workers: int, heard: OnReport | None
) -> Path:
    """The last checkpoint of a loop: in this process, where one worker without a GPU is asked for, else on Ray Train."""
    resources = stage.resources
    if workers == 1 and not resources.gpus and not _needs_processes(job):
        return here(loop, job, folder=context.scratch / name, on_report=heard)
    return fit(
        loop,
        job,
        workers=workers,
        storage=context.scratch,
        name=name,
        resources=resources,
        max_failures=resources.max_restarts,
        on_report=heard,
    )


def _needs_processes(job: Any) -> bool:
    """DeepSpeed takes hold of the process that it runs in."""
    return isinstance(job, Training) and job.options.engine.kind == "deepspeed"


def run_training(stage: Stage, training: Training, context: Context, *, length: str, logs: bool) -> Path:
    """Trains to the end; returns the last checkpoint. What was trained becomes the stage's weights.

    `length`: of the run, shown beside the bar; `logs`: whether the trackers' files and the previews are kept with it.
    """

    def heard(metrics: dict[str, Any]) -> None:
        context.progress(metrics["step"], training.options.steps, f"{_note(metrics)}, {length}")

    name = f"{stage.name}-{stage.key}"
    workers = stage.resources.workers
    checkpoint = launched(stage, train, training, context, name=name, workers=workers, heard=heard)
    shutil.copytree(checkpoint / EXPORT, context.weights_out, dirs_exist_ok=True)
    for logged in (TRACKED, PREVIEWS) if logs else ():
        if (context.scratch / name / logged).is_dir():
            shutil.copytree(context.scratch / name / logged, context.weights_out / logged, dirs_exist_ok=True)
    return checkpoint


def curve_of(checkpoint: Path) -> Iterator[Curve]:
    """The whole curve of a training that has ended."""
    return curve_rows(read_curve(checkpoint))


def _note(metrics: dict[str, Any]) -> str:
    """The loss, and whatever the objective calls an accuracy."""
    shown = {name: value for name, value in metrics.items() if name.endswith("accuracy") and value is not None}
    parts = [f"loss {metrics['loss']:.4f}", *(f"{name.replace('_', ' ')} {value:.3f}" for name, value in shown.items())]
    return ", ".join(parts)
