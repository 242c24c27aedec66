"""Stage `tune`: a generator is fine-tuned on preferences by any of the offline methods, on as many workers as there are."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field, model_validator

from actors.training.engines.engine import EngineOptions
from actors.training.launch import fit
from actors.training.options import TrainerOptions
from actors.training.trackers.tracker import Trackers
from actors.training.trainer import EXPORT, PREVIEWS, TRACKED, Training, read_curve, train
from infra.config import Config, ConfigError
from infra.dag.stage import Context, Inputs, Resources, TableStage, Unforeseeable
from infra.identity import canonical, dumps, key_of
from pipelines.algorithms.diffusion.flow import TimeSampler, UniformTimes
from pipelines.algorithms.preference.flow_dpo import FlowDPO
from pipelines.algorithms.preference.methods import AnyMethod
from pipelines.algorithms.preference.needs import REMEDIES
from pipelines.algorithms.preference.rwr import RWR
from pipelines.models.adapter import Start
from pipelines.models.card import CARD, Ancestor, Use, model_card, summary
from pipelines.models.families.base import Family
from pipelines.models.memory import Architecture, rank_memory
from pipelines.models.weights import Hub
from pipelines.schemas.training import TuneStep
from pipelines.stages.examples import Examples
from pipelines.stages.reference_errors import ReferenceErrors
from pipelines.stages.sources import Trained, merges, origin
from pipelines.training.arithmetic import Arithmetic
from pipelines.training.data import TrainingData
from pipelines.training.noise import NoiseDraws
from pipelines.training.preference import PolicySpec, PreferenceObjective, PreviewSpec, ReferenceKind

MANY_EPOCHS = 10
"""Above, VideoAlign (appendix) and others report that preference tuning deteriorates: then the log and the card warn."""
METRICS = tuple(name for name in TuneStep.__dataclass_fields__ if name not in ("step", "learning_rate"))
"""Of a training's curve: what the card tells."""


class Previews(Config):
    """Pictures of fixed texts, drawn while training."""

    texts: tuple[str, ...] = ()
    """Must be among the texts that `encode` encodes."""
    frames: int = Field(1, ge=1)
    height: int = Field(512, ge=8)
    width: int = Field(512, ge=8)
    steps: int = Field(20, ge=1)
    """Sampling steps."""
    guidance: float = Field(4.0, ge=1)
    seed: int = Field(0, ge=0)


class Tune(TableStage, Trained):
    """Examples in; the training curve out, the trained adapter or pipeline as weights, with a model card and its logs."""

    name: ClassVar = "tune"
    version: ClassVar = 2
    row: ClassVar = TuneStep

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
        self._check_errors()
        self.trainer.require_workers(self.resources.workers)
        if "probability" in self.method.needs and not self.examples.has_probability:
            raise ConfigError(f"tune: {REMEDIES['probability']}")
        if self.flips and not self.examples.encoded.flips:
            raise ConfigError("tune: flips needs the pictures encoded in both orientations; set flips in encode, too")
        if isinstance(self.method, RWR) and self.examples.scores is None:
            raise ConfigError(
                "tune: rwr weighs every picture by its own reward; give examples the `scores` of a scorer or reward model"
            )
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

    def _check_errors(self) -> None:
        """Cached errors are of this policy, these examples and these draws, or they are not this tune's."""
        if self.errors is None:
            return
        pairs = {
            "examples": (self.errors.examples.key, self.examples.key),
            "policy": (self.errors.policy, self.policy),
            "start": (self.errors.start and self.errors.start.key, self.start and self.start.key),
            "times": (self.errors.times, self.times),
            "draws": (self.errors.draws, self.draws),
            "draws_seed": (self.errors.seed, self.draws_seed),
            "guidance": (self.errors.guidance, self.guidance),
            "caption_dropout": (self.errors.caption_dropout, self.caption_dropout),
            "flips": (self.errors.flips, self.flips),
            "arithmetic": (self.errors.arithmetic, self.arithmetic),
            "merged": (self.errors.merged, merges(self.start, self.adapter)),
        }
        for name, (theirs, ours) in pairs.items():
            if theirs != ours:
                raise ConfigError(f"tune: {name} = {ours!r}, but the cached errors have {theirs!r}; make them agree")

    @property
    def reference_kind(self) -> ReferenceKind:
        """Where the reference's part comes from."""
        if self.method.reference == "none":
            return "none"
        if self.errors is not None:
            return "cached"
        return "adapter" if self.adapter.kind == "lora" and self.reference == "own" else "copy"

    def run(self, context: Context) -> Iterator[TuneStep]:
        """One row an optimiser step, in order."""
        self.trackers.check()
        self._check_weights(context)
        examples = self._examples(context)
        trainer = self.trainer.resolved(examples.num_rows)
        epochs = trainer.epochs_of(examples.num_rows)
        context.metric("epochs", round(epochs, 2))
        objective = self.objective(context, examples)
        name = f"tune-{self.key}"
        told = f"{epochs:.1f} epochs" + (", which is many: the policy may forget" if epochs > MANY_EPOCHS else "")

        def heard(metrics: dict[str, Any]) -> None:
            note = f"loss {metrics['loss']:.4f}, implicit accuracy {metrics['implicit_accuracy']:.3f}, {told}"
            context.progress(metrics["step"], trainer.steps, note)

        checkpoint = fit(
            train,
            Training(objective, trainer, self.trackers),
            workers=self.resources.workers,
            storage=context.scratch,
            name=name,
            resources=self.resources,
            max_failures=self.resources.max_restarts,
            on_report=heard,
        )
        shutil.copytree(checkpoint / EXPORT, context.weights_out, dirs_exist_ok=True)
        for logged in (TRACKED, PREVIEWS):
            if (context.scratch / name / logged).is_dir():
                shutil.copytree(context.scratch / name / logged, context.weights_out / logged, dirs_exist_ok=True)
        curve = read_curve(checkpoint)
        (context.weights_out / CARD).write_text(self._card(context, curve, told))
        names = TuneStep.__dataclass_fields__
        for row in curve:
            yield TuneStep(**{column: row.get(column) for column in names})  # pyright: ignore[reportArgumentType]

    def require_here(self) -> None:
        """The trackers are installed, their servers answer, and the weights are whole: hours before they are loaded."""
        self.trackers.check()
        self.policy.require_whole()

    def expected_rows(self, inputs: Inputs) -> int | None:
        """One per step; what `epochs` come to follows from the examples that are expected."""
        if self.trainer.epochs is None:
            return self.trainer.steps
        try:
            examples = self.examples.expected_rows(inputs)
        except Unforeseeable:
            return None
        return None if examples is None else self.trainer.resolved(examples).steps

    def demand(self) -> str:
        """GPUs, and the memory that each needs."""
        if self.architecture is None:
            return super().demand()
        engine, workers, buckets = self.trainer.engine, self.resources.workers, self.examples.encoded.buckets
        side = round(math.sqrt(buckets.area))  # pairs that keep their own shapes are reckoned as squares of this area
        height, width = buckets.shape(side, side)
        lora = self.adapter if self.adapter.kind == "lora" else None
        memory = rank_memory(
            self.architecture,
            adapter=self.adapter.kind,
            rank=lora.rank if lora else 0,
            targets=(lora and lora.targets) or self.policy.lora_targets,
            zero=engine.zero if engine.kind == "deepspeed" else 0,
            workers=workers,
            offload=engine.offload,
            bf16=engine.bf16,
            ema=self.trainer.ema is not None,
            factored=self.trainer.optimizer.kind == "adafactor",
            reference="none" if self.reference_kind == "cached" else self.reference_kind,
            checkpointing=self.checkpointing,
            micro_batch=min(self.trainer.micro_batch, -(-self.trainer.batch // workers)),
            height=height,
            width=width,
            frames=max(buckets.frames),
        )
        host = f", {memory.host:.1f} GiB of the host's" if memory.host else ""
        return f"{workers} x {self.resources.gpus:g} GPU, {memory.total:.1f} GiB a rank{host}"

    def objective(self, context: Context, examples: pa.Table) -> PreferenceObjective:
        """What the workers are sent; writes the examples they read."""
        context.metric("pairs", examples.num_rows)
        encoded = self.examples.encoded
        data = TrainingData(context.scratch.resolve() / "examples.arrow", context.lookup(encoded), encoded.text_id(""))
        data.write(examples)
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
            described=json.loads(dumps(canonical(self.description))),
            errors=errors,
            previews=self._previews() if self.trainer.preview_every else None,
            comfyui=self.comfyui,
        )

    @property
    def arithmetic(self) -> Arithmetic:
        """Of the policy's forward pass."""
        return Arithmetic.of(self.trainer.engine, self.adapter)

    def _spec(self, family: Family, start: Start | None) -> PolicySpec:
        weights = self.arithmetic.weights
        return PolicySpec(family, self.adapter, start, self.checkpointing, weights, self.guidance, self.compiled)

    def _check_weights(self, context: Context) -> None:
        """The generator is of the recipe's family, its objective is the method's, and the latents are of its VAE."""
        policy = self.policy.placed(context)
        policy.refuse_other()
        prediction = policy.prediction()
        if prediction not in self.method.predictions:
            kinds = ", ".join(sorted(self.method.predictions))
            raise ConfigError(
                f"tune: {self.method.method} trains generators that predict {kinds}; {policy.folder} predicts "
                f"{prediction}; use {'flow_dpo' if prediction == 'flow' else 'diffusion_dpo'}"
            )
        encoders = self.examples.encoded.encoders.family.placed(context)
        policy.refuse_latents_of(encoders, stage=self.name)

    def _examples(self, context: Context) -> pa.Table:
        """The examples this method can use, from the chosen generators."""
        table = context.table(self.examples)
        if self.sources:
            known = pa.array(self.sources, pa.string())
            ours = [pc.is_in(table[f"generator_{side}"], known) for side in ("winner", "loser")]
            table = table.filter(pc.and_(*ours))
        if not self.method.keeps_ties:
            table = table.filter(pc.invert(table["tie"]))
        if not table.num_rows:
            raise ConfigError("tune: there is no pair with a winner to learn from; add jurors or pairs, or check `sources`")
        for name in sorted(self.method.needs):
            if missing := table[name].null_count:
                raise ConfigError(f"tune: {missing} of {table.num_rows} examples have no {name}; {REMEDIES[name]}")
        return table

    def _previews(self) -> PreviewSpec:
        encoded, spec = self.examples.encoded, self.previews
        texts = tuple((text, encoded.text_id(text)) for text in spec.texts)
        shape = (spec.frames, spec.height, spec.width)
        return PreviewSpec(texts, encoded.text_id(""), shape, spec.steps, spec.guidance, spec.seed)

    def _card(self, context: Context, curve: list[dict[str, Any]], told: str) -> str:
        """The model card: where the weights come from, how they were made, how the training began and ended."""
        policy, weights = self.policy, self.policy.weights
        base = weights.repo if isinstance(weights, Hub) else policy.placed(context).folder.name
        lineage = [Ancestor(base, key_of(self.policy), "the generator")]
        lineage += [Ancestor(one.node, one.key, f"{one.rows} rows") for one in context.lineage()]
        settings = json.loads(dumps(canonical(self.description)))
        use = Use(
            f"{policy.pipeline_module}.{policy.pipeline_class}",
            base,
            lora=self.adapter.kind == "lora",
            video=self.examples.encoded.pictures.clips,
        )
        title = f"{base} tuned by {self.method.method}, {told}"
        return model_card(title, use=use, lineage=lineage, settings=settings, scores=summary(curve, metrics=METRICS))
