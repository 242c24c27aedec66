"""The nodes of an offline tuning of a real generator, from pairs to the trained policy: what its recipes share.

`Source` and `Setup` are arguments of the recipes; their fields are flags of the command.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from pydantic import Field

from actors.training.engines.engine import AdamW, AnyOptimizer
from actors.training.options import TrainerOptions
from infra.config import Config, ConfigError
from infra.dag.stage import Resources
from pipelines.algorithms.preference.methods import AnyMethod
from pipelines.exchange.formats import FormatName
from pipelines.recipes.parts.checks import require_draws, require_lengths
from pipelines.recipes.parts.model import Trainee, published
from pipelines.recipes.parts.pairs import Data
from pipelines.recipes.parts.setup import Setup
from pipelines.stages.examples import Examples
from pipelines.stages.reference_errors import ReferenceErrors
from pipelines.stages.sources import Trained, merges
from pipelines.stages.tune import Tune
from pipelines.training.arithmetic import Arithmetic
from pipelines.training.previews import Previews

NOTHING = "none"  # what --exclude-subset says to leave out nothing


class Source(Config):
    """Which generator learns from which pairs, and how long: what a recipe takes of its user."""

    weights: Annotated[str, Field(description="folder or hub id of the generator; the published one by default")] = ""
    revision: Annotated[str, Field(description="of the hub id")] = "main"
    pairs: Annotated[
        str,
        Field(
            description="what to learn from: a folder of pairs, or the file of a run in this store that has judged pairs "
            "(STORE/runs/NAME.json), whose samples, labels and latents are used as they are"
        ),
    ] = ""
    pairs_format: Annotated[FormatName, Field(description="format of the folder; salon import reads the same formats")] = (
        "salon"
    )
    pairs_map: Annotated[tuple[str, ...], Field(description="OLD=NEW,…: columns by the format's names for them")] = ()
    subset: Annotated[tuple[str, ...], Field(description="parts of the data set to learn from, all by default")] = ()
    exclude_subset: Annotated[
        tuple[str, ...],
        Field(description="parts of the data set to leave out; those that the paper leaves out by default, or none"),
    ] = ()
    steps: Annotated[int | None, Field(ge=1, description="optimiser steps, instead of the paper's")] = None
    epochs: Annotated[
        float | None, Field(gt=0, allow_inf_nan=False, description="passes over the pairs, instead of steps")
    ] = None
    batch: Annotated[int | None, Field(ge=1, description="pairs per step, instead of the paper's")] = None
    learning_rate: Annotated[
        float | None, Field(gt=0, allow_inf_nan=False, description="highest learning rate of the last training")
    ] = None
    rank: Annotated[int | None, Field(ge=1, description="rank of the LoRA, 64 by default; its alpha is twice that")] = None
    side: Annotated[
        int | None,
        Field(ge=8, description="training resolution: side in pixels of a square of equal area (default: the paper's)"),
    ] = None
    max_error_share: Annotated[
        float, Field(ge=0, le=1, description="share of rows that may be quarantined before a stage fails")
    ] = 0.05

    def data(self, *, expected: int, area: int, without: tuple[str, ...] = (), **options: Any) -> Data:
        """The pairs, in the paper's shapes where no others are asked for; `without`: subsets that the paper leaves out."""
        chosen: dict[str, Any] = {"pairs": self.pairs, "format": self.pairs_format, "renamed": self.pairs_map}
        asked_out = () if self.exclude_subset == (NOTHING,) else self.exclude_subset
        chosen |= {"subsets": self.subset, "named": (*self.subset, *asked_out)}
        chosen["without"] = asked_out if self.exclude_subset or self.subset else without
        asked: dict[str, Any] = {"area": self.side**2, "own": False} if self.side else {"area": area}
        return Data(expected=expected, max_error_share=self.max_error_share, **chosen, **options | asked)

    def model(self, name: str, adapter: Literal["lora", "full"]) -> Trainee:
        """The generator that is trained, under its published name; raises ConfigError for a rank of full training."""
        if self.rank is not None and adapter == "full":
            raise ConfigError(f"--rank {self.rank}: all weights are trained; choose --adapter lora")
        return published(name, adapter=adapter, rank=self.rank or 64, weights=self.weights, revision=self.revision)


@dataclass(frozen=True)
class Run:
    """A paper's settings of one training."""

    steps: int
    batch: int
    learning_rate: float
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warm_up: int = 0
    optimizer: AnyOptimizer = field(default_factory=lambda: AdamW(betas=(0.9, 0.999)))
    epochs: float | None = None
    """Passes over the pairs, which then decide the number of steps."""
    scaled: bool = True
    """Whether the paper gives a base rate, so that the rate is in proportion to the batch."""
    caption_dropout: float = 0.0
    """Share of the examples that are trained with the empty text."""

    def of(self, source: Source, *, last: bool = True) -> Run:
        """With the user's steps, batch and, for the last training, learning rate."""
        steps, batch = source.steps or self.steps, source.batch or self.batch
        rate = self.learning_rate * batch / self.batch if self.scaled else self.learning_rate
        rate = source.learning_rate if last and source.learning_rate else rate
        epochs = source.epochs if source.epochs or source.steps else self.epochs
        warm_up = round(self.warm_up / self.steps * steps)
        return replace(self, steps=steps, epochs=epochs, batch=batch, learning_rate=rate, warm_up=warm_up)


def stage(
    model: Trainee,
    data: Data,
    method: AnyMethod,
    run: Run,
    *,
    setup: Setup,
    label: str,
    start: Trained | None = None,
    guidance: float = 1.0,
) -> Tune:
    """The tune node of a method, with all it stands on; the reference's errors are cached where `setup.draws` says so."""
    require_draws(setup.draws, method)
    require_lengths(data.frames, type(model.family))
    previews = setup.previews(data.area, frames=data.frames, multiple=model.family.size_multiple)
    examples = data.nodes(model, previews, setup=setup)
    return tuned(examples, model, method, run, setup=setup, previews=previews, label=label, start=start, guidance=guidance)


def tuned(
    examples: Examples,
    model: Trainee,
    method: AnyMethod,
    run: Run,
    *,
    setup: Setup,
    previews: Previews,
    label: str = "",
    start: Trained | None = None,
    guidance: float = 1.0,
    sources: tuple[str, ...] = (),
    checkpointing: bool = True,
) -> Tune:
    """The tune node of a method on examples that are there, or on those of pairs by these sources; every recipe's.

    checkpointing: activations are computed again in the backward pass, for which a small model has no need.
    """
    errors = None
    if setup.draws:
        errors = _reference_errors(examples, model, run, setup=setup, start=start, guidance=guidance)
    return Tune(
        label=label,
        examples=examples,
        policy=model.family,
        architecture=model.size,
        start=start,
        method=method,
        adapter=model.trained(),
        errors=errors,
        draws=setup.draws if errors else None,
        draws_seed=setup.seed if errors else 0,
        times=model.times(),
        caption_dropout=run.caption_dropout,
        flips=examples.encoded.flips,
        sources=sources,
        guidance=guidance,
        base_precision=setup.base_precision,
        trainer=_trainer(run, setup),
        checkpointing=checkpointing,
        previews=previews,
        trackers=setup.trackers(),
        comfyui=setup.comfyui,
        resources=Resources(workers=setup.workers, gpus=setup.gpus),
    )


def _reference_errors(
    examples: Examples, model: Trainee, run: Run, *, setup: Setup, start: Trained | None, guidance: float
) -> ReferenceErrors:
    """The reference's errors on `setup.draws` fixed draws of each pair, under the settings of the training."""
    return ReferenceErrors(
        examples=examples,
        policy=model.family,
        start=start,
        arithmetic=Arithmetic.of(setup.engine(run.optimizer), model.trained(), base=setup.base_precision),
        merged=merges(start, model.trained()),
        times=model.times(),
        draws=setup.draws,
        seed=setup.seed,
        caption_dropout=run.caption_dropout,
        flips=examples.encoded.flips,
        guidance=guidance,
        resources=Resources(workers=setup.workers, gpus=setup.gpus),
    )


def _trainer(run: Run, setup: Setup) -> TrainerOptions:
    return TrainerOptions(
        steps=run.steps,
        batch=run.batch,
        epochs=run.epochs,
        learning_rate=run.learning_rate,
        schedule=run.schedule,
        warm_up=run.warm_up,
        optimizer=run.optimizer,
        engine=setup.engine(run.optimizer),
        ema=setup.ema,
        seed=setup.seed,
        micro_batch=setup.micro_batch,
        preview_every=setup.preview_every,
    )
