"""Stage `tune`: a generator is fine-tuned on preferences by any of the offline methods, on as many workers as there are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field, model_validator

from actors.training.engines.engine import EngineOptions
from actors.training.options import TrainerOptions
from actors.training.trackers.tracker import Trackers
from actors.training.trainer import Training
from infra.config import ConfigError
from infra.dag.foretold import GpuTime
from infra.dag.stage import Context, Inputs, Resources, TableStage
from pipelines.algorithms.diffusion.flow import TimeSampler, UniformTimes
from pipelines.algorithms.preference.flow_dpo import FlowDPO
from pipelines.algorithms.preference.methods import AnyMethod
from pipelines.algorithms.preference.needs import REMEDIES, REWARDS
from pipelines.models.adapter import Start
from pipelines.models.card import CARD
from pipelines.models.families.base import Family
from pipelines.models.memory import Architecture
from pipelines.models.quantised import BasePrecision, require_frozen, require_quantiser
from pipelines.schemas.curves import Curve
from pipelines.stages.examples import Examples
from pipelines.stages.reference_errors import ReferenceErrors
from pipelines.stages.sources import Trained, merges, origin
from pipelines.training.arithmetic import Arithmetic
from pipelines.training.card import tuned_card
from pipelines.training.demand import memory_demand, reckoned_time
from pipelines.training.noise import NoiseDraws
from pipelines.training.preference import PolicySpec, PreferenceObjective, ReferenceKind, require_prediction
from pipelines.training.previews import Previews
from pipelines.training.stage import curve_of, foreseen_length, placed_policy, run_length, run_training, training_data

COUNTED = ("tie", "generator_winner", "generator_loser")
"""Columns of the examples by which it is known how many of them a method learns from."""


class Tune(TableStage, Trained):
    """Examples in; the training curve out, the trained adapter or pipeline as weights, with a model card and its logs."""

    name: ClassVar = "tune"
    version: ClassVar = 3
    row: ClassVar = Curve

    examples: Examples
    architecture: Architecture | None = Field(None, exclude=True)
    "Its published size (`models.sizes`), by which `plan` reckons the memory that each rank needs."
    method: AnyMethod = FlowDPO()
    "The loss, with its margin, polynomial term, loser gradient and label confidence."
    reference: Literal["own", "copy"] = Field("own", exclude=True)
    "Own: the model without its adapter, where one is trained, else a frozen copy."
    errors: ReferenceErrors | None = None
    "The reference's errors, computed before: then no reference is in memory. Fixes the draws of noise and time."
    draws: int | None = Field(None, ge=1)
    "Different (noise, time) an example; None: another at every step."
    draws_seed: int = Field(0, ge=0)
    "Seed of the fixed draws."
    caption_dropout: float = Field(0.0, ge=0, lt=1)
    "Share of the examples whose text is replaced by the empty one, which guidance needs to stay trained."
    flips: bool = False
    "Exchange left and right of both members of half of the examples; encode must have encoded them so, too."
    sources: tuple[str, ...] = ()
    "Learn only from pairs of which both pictures are by these generators; from all by default."
    times: TimeSampler = UniformTimes()
    "How noise levels are drawn."
    guidance: float = Field(1.0, ge=0)
    "Guidance scale given to a guidance-distilled denoiser (FLUX.1-dev, HunyuanVideo) in training; 1 fits data."
    base_precision: BasePrecision = "unquantised"
    "How the frozen weights under a LoRA are kept: nf4 takes a quarter of the memory and adds the rounding of 4 bits."
    trainer: TrainerOptions = TrainerOptions(learning_rate=1e-3, engine=EngineOptions(zero=1))
    "Steps, batch, learning rate, engine."
    checkpointing: bool = Field(False, exclude=True)
    "Recompute activations in the backward pass: less memory, a third more time, the same numbers."
    compiled: bool = Field(False, exclude=True)
    "Policy and reference by torch.compile: a minute more at the start, less a step, the same numbers but for rounding."
    previews: Previews = Field(Previews(), exclude=True)
    trackers: Trackers = Field(Trackers(), exclude=True)
    "Where metrics go besides TensorBoard and JSONL."
    comfyui: bool = False
    "Write the adapter a second time under ComfyUI's keys."
    resources: Resources = Field(Resources(workers=2), exclude=True)

    @model_validator(mode="after")
    def _possible(self) -> Tune:
        require_frozen(self.base_precision, self.adapter)
        engine = self.trainer.engine
        if self.base_precision != "unquantised" and engine.kind == "deepspeed" and engine.zero == 3:
            raise ConfigError(
                f"tune: base_precision = {self.base_precision}: ZeRO 3 cannot divide quantised weights among "
                "the workers; use ZeRO 1 or 2, or plain torch"
            )
        if self.errors is not None:
            self.errors.require_base(self.base_precision)
            self.errors.require(
                examples=self.examples.key,
                policy=self.policy,
                start=self.start and self.start.key,
                times=self.times,
                draws=self.draws,
                draws_seed=self.draws_seed,
                guidance=self.guidance,
                caption_dropout=self.caption_dropout,
                flips=self.flips,
                arithmetic=self.arithmetic,
                merged=merges(self.start, self.adapter),
            )
        self.trainer.require_workers(self.resources.workers)
        if "probability" in self.method.needs and not self.examples.has_probability:
            raise ConfigError(f"tune: {REMEDIES['probability']}")
        if self.flips and not self.examples.encoded.flips:
            raise ConfigError("tune: flips needs the pictures encoded in both orientations; set flips in encode, too")
        if self.method.needs & REWARDS and self.examples.scores is None:
            raise ConfigError(f"tune: {REMEDIES['reward_winner']}")
        if self.method.reference == "predictions" and self.errors is not None:
            raise ConfigError(
                f"tune: {self.method.method} needs the reference's predictions, not its errors; leave out `errors`"
            )
        if self.comfyui and self.adapter.kind == "full":
            raise ConfigError("tune: comfyui writes an adapter under other keys, and none is trained; set adapter to lora")
        if self.comfyui and self.policy.comfyui_names is None:
            raise ConfigError(f"tune: ComfyUI has other layers than {self.policy.name} in diffusers; leave out comfyui")
        if self.trainer.preview_every and self.policy.reads_first_frame:
            raise ConfigError(
                f"tune: {self.policy.name} starts from a first frame, which a preview lacks; leave previews out"
            )
        if self.trainer.preview_every and not self.previews.texts:
            raise ConfigError("tune: preview_every is set but previews.texts is empty; name the texts to draw")
        missing = set(self.previews.texts) - set(self.examples.encoded.texts)
        if missing:
            raise ConfigError(f"tune: the preview text {sorted(missing)[0]!r} is not encoded; add it to encode's texts")
        return self

    @property
    def reference_kind(self) -> ReferenceKind:
        """Where the reference's part comes from."""
        if self.method.reference == "none":
            return "none"
        if self.errors is not None:
            return "cached"
        return "adapter" if self.adapter.kind == "lora" and self.reference == "own" else "copy"

    def run(self, context: Context) -> Iterator[Curve]:
        """Every metric of every optimiser step, in the order of the steps."""
        self.trackers.check()
        self._check_weights(context)
        examples = self._examples(context)
        trainer = self.trainer.resolved(examples.num_rows)
        length = run_length(trainer, examples.num_rows)
        context.metric("epochs", round(trainer.epochs_of(examples.num_rows), 2))
        context.metric("pairs", examples.num_rows)
        training = Training(self.objective(context, examples), trainer, self.trackers)
        curve = list(curve_of(run_training(self, training, context, length=length, logs=True)))
        card = tuned_card(
            self.policy,
            placed=self.policy.placed(context),
            adapter=self.adapter,
            method=self.method.method,
            length=length,
            clips=self.examples.encoded.pictures.clips,
            lineage=context.lineage(),
            settings=self.description,
            curve=curve,
        )
        (context.weights_out / CARD).write_text(card)
        yield from curve

    def require_here(self) -> None:
        """Trackers and quantiser are installed, servers answer, and the weights are whole: hours before they are loaded."""
        self.trackers.check()
        self.policy.require_whole()
        require_quantiser(self.base_precision)

    def demand(self, inputs: Inputs) -> str:
        """Steps and epochs, GPUs, and the memory that each needs."""
        length = foreseen_length(
            self.trainer,
            counted=lambda: self._usable(inputs.table(self.examples, COUNTED)).num_rows,
            expected=lambda: self.examples.expected_rows(inputs),
        )
        if self.architecture is None:
            gpus = super().demand(inputs)
        else:
            gpus = memory_demand(
                self.architecture,
                self.policy,
                adapter=self.adapter,
                trainer=self.trainer,
                reference=self.reference_kind,
                checkpointing=self.checkpointing,
                base_precision=self.base_precision,
                buckets=self.examples.encoded.buckets,
                resources=self.resources,
            )
        return "; ".join(part for part in (length, gpus) if part)

    def gpu_time(self, inputs: Inputs, rows: int | None) -> GpuTime | None:
        """Reckoned from the published size and the pairs it sees; there are no rows of it."""
        del rows
        trainer, architecture = self.trainer, self.architecture
        if architecture is None:
            return None
        if trainer.epochs is None:
            pairs = trainer.steps * trainer.batch
        else:
            expected = self.examples.expected_rows(inputs)
            if expected is None:
                return None
            pairs = trainer.epochs * expected
        return reckoned_time(
            architecture,
            pairs=pairs,
            adapter=self.adapter,
            reference=self.reference_kind,
            trains_losers=self.method.trains_losers,
            checkpointing=self.checkpointing,
            buckets=self.examples.encoded.buckets,
        )

    def objective(self, context: Context, examples: pa.Table) -> PreferenceObjective:
        """What the workers are sent; writes the examples they read."""
        encoded = self.examples.encoded
        data = training_data(examples, "examples", encoded=encoded, empty=encoded.text_id(""), context=context)
        errors = None
        if self.errors is not None:
            errors = context.scratch.resolve() / "reference_errors.parquet"
            pq.write_table(context.table(self.errors, ["example", "draw", "winner", "loser"]), errors)
        family, start = origin(self.policy, self.start, context)
        return PreferenceObjective(
            data=data,
            policy=self._spec(family, start),
            method=self.method,
            noise=NoiseDraws(self.times, self.draws, self.draws_seed, self.caption_dropout, self.flips),
            reference=self.reference_kind,
            described=self.description,
            errors=errors,
            previews=self.previews.spec(encoded.text_id) if self.trainer.preview_every else None,
            comfyui=self.comfyui,
        )

    @property
    def arithmetic(self) -> Arithmetic:
        """Types and autocast of the policy's forward pass."""
        return Arithmetic.of(self.trainer.engine, self.adapter, base=self.base_precision)

    def _spec(self, family: Family, start: Start | None) -> PolicySpec:
        weights = self.arithmetic.weights
        return PolicySpec(
            family,
            self.adapter,
            start,
            checkpointing=self.checkpointing,
            dtype=weights,
            guidance=self.guidance,
            compiled=self.compiled,
            base_precision=self.base_precision,
        )

    def _check_weights(self, context: Context) -> None:
        """The generator is of the recipe's family, its objective is the method's, and the latents are of its VAE."""
        encoders = self.examples.encoded.encoders.family
        policy = placed_policy(self.policy, encoders, context, stage=self.name)
        policy.refuse_other()
        require_prediction(self.method, policy)

    def _examples(self, context: Context) -> pa.Table:
        """The examples this method can use, from the chosen generators."""
        table = self._usable(context.table(self.examples))
        if not table.num_rows:
            raise ConfigError("tune: there is no pair with a winner to learn from; add jurors or pairs, or check `sources`")
        for name in sorted(self.method.needs):
            if missing := table[name].null_count:
                raise ConfigError(f"tune: {missing} of {table.num_rows} examples have no {name}; {REMEDIES[name]}")
        return table

    def _usable(self, table: pa.Table) -> pa.Table:
        """Those of the chosen generators, and without ties where the method learns nothing from them."""
        if self.sources:
            known = pa.array(self.sources, pa.string())
            ours = [pc.is_in(table[f"generator_{side}"], known) for side in ("winner", "loser")]
            table = table.filter(pc.and_(*ours))
        return table if self.method.keeps_ties else table.filter(pc.invert(table["tie"]))
