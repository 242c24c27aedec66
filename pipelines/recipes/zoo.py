"""Recipe `zoo`: everything that is shipped, trained from nothing with the seeds and settings that made it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from infra.config import ConfigError
from infra.dag.stage import Resources
from pipelines.miniature import generators, jurors
from pipelines.miniature.making.pretrain import Pretraining
from pipelines.miniature.stages.pretrain import Pretrain
from pipelines.miniature.stages.train_juror import TrainJuror
from pipelines.miniature.stages.zoo import Zoo


def zoo(
    *,
    captions: Annotated[int, Field(ge=6, le=1000, description="held-out captions each generator is measured on")] = 1000,
    generator_steps: Annotated[int | None, Field(ge=1, description="steps of every generator; its own by default")] = None,
    juror_steps: Annotated[int | None, Field(ge=1, description="steps of every juror; its own by default")] = None,
) -> Zoo:
    """pretrain (one for each architecture), train_juror (one a juror) -> zoo. About two hours on two cores."""
    made = [_shortened(options, generator_steps) for options in generators.training()]
    pretrained = tuple(Pretrain(options=options, label=options.architecture) for options in made)
    trained: dict[str, TrainJuror] = {}
    for name, options in jurors.TRAINING.items():
        options = options if juror_steps is None else options.model_copy(update={"steps": juror_steps})
        start = None if options.continues is None else trained[options.continues]
        trained[name] = TrainJuror(options=options, start=start, label=name, resources=Resources())
    return Zoo(generators=pretrained, jurors=tuple(trained.values()), captions=captions)


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
