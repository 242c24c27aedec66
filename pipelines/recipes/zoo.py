"""Recipe `zoo`: everything that is shipped, trained from nothing with the seeds and settings that made it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from infra.config import ConfigError
from pipelines.miniature import generators, jurors
from pipelines.miniature.making.pretrain import Pretraining
from pipelines.miniature.stages.pretrain import PretrainGenerator
from pipelines.miniature.stages.train_juror import TrainJuror
from pipelines.miniature.stages.zoo import GatherZoo


def zoo(
    *,
    captions: Annotated[int, Field(ge=6, le=1000, description="held-out captions that measure each generator")] = 1000,
    generator_steps: Annotated[
        int | None, Field(ge=1, description="optimiser steps of every generator (default: as each was shipped)")
    ] = None,
    juror_steps: Annotated[
        int | None, Field(ge=1, description="optimiser steps of every juror (default: as each was shipped)")
    ] = None,
) -> GatherZoo:
    """pretrain (one per architecture), train_juror (one per juror) -> zoo. It takes about two hours on two cores."""
    made = [_shortened(options, generator_steps) for options in generators.training()]
    pretrained = tuple(PretrainGenerator(options=options, label=options.architecture) for options in made)
    trained: dict[str, TrainJuror] = {}
    for name, options in jurors.TRAINING.items():
        options = options if juror_steps is None else options.model_copy(update={"steps": juror_steps})
        start = None if options.continues is None else trained[options.continues]
        trained[name] = TrainJuror(called=name, options=options, start=start, label=name)
    return GatherZoo(generators=pretrained, jurors=tuple(trained.values()), captions=captions)


def _shortened(options: Pretraining, steps: int | None) -> Pretraining:
    """The same training with its snapshots at the same shares of fewer steps: for tests and trials."""
    if steps is None:
        return options
    snapshots = tuple(
        snapshot.model_copy(update={"at": max(1, round(snapshot.at * steps / options.steps))})
        for snapshot in options.snapshots
    )
    if len({snapshot.at for snapshot in snapshots}) < len(snapshots):
        raise ConfigError(f"--generator-steps {steps}: too few to tell the snapshots apart; take at least 40")
    shares = {"warm_up": max(1, min(options.warm_up, steps // 4)), "cool_down": options.cool_down * steps // options.steps}
    return options.model_copy(update={"steps": steps, "snapshots": snapshots, **shares})
