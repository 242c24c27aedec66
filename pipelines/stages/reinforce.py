"""Stage `reinforce`: a generator is trained online, on rollouts of its own that a reward judges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from actors.training.engines.engine import EngineOptions
from actors.training.options import TrainerOptions
from actors.training.trackers.tracker import Trackers
from actors.training.trainer import Training, ended_early
from infra.config import ConfigError
from infra.dag.stage import Context, Inputs, Resources, Stage, TableStage
from infra.identity import seed_of
from pipelines.algorithms.online.stop import StopRule
from pipelines.models.card import CARD
from pipelines.models.policy import ReferenceModel
from pipelines.models.quantised import BasePrecision, require_frozen, require_quantiser
from pipelines.schemas.curves import Curve
from pipelines.schemas.training import RolloutState
from pipelines.stages.encode_texts import EncodeTexts
from pipelines.stages.sources import Trained, origin
from pipelines.training.arithmetic import Arithmetic
from pipelines.training.card import tuned_card
from pipelines.training.online import HeldOut, OnlineObjective
from pipelines.training.online_methods import AnyOnlineMethod, TAPOMethod
from pipelines.training.preference import PolicySpec
from pipelines.training.previews import Previews
from pipelines.training.rewarding import AnyReward, FoundWeights, OnlinePrompt
from pipelines.training.rollouts import RolloutFiles
from pipelines.training.stage import curve_of, run_training


class Reinforce(TableStage, Trained):
    """Prompts in; the training curve out, the numbers of all rollouts beside, the trained policy as weights."""

    name: ClassVar = "reinforce"
    row: ClassVar = Curve
    tables: ClassVar[Mapping[str, type]] = {"rollouts": RolloutState}

    texts: EncodeTexts
    "The embedded prompts that it learns from."
    rewards: tuple[AnyReward, ...] = Field(min_length=1)
    "What is rewarded: the weighted sum of these."
    method: AnyOnlineMethod = TAPOMethod()
    "The algorithm: how rollouts branch, what is learnt from them, and the loss."
    frames: int = Field(1, ge=1)
    "Frames of a sample; 1 for a picture."
    height: int = Field(512, ge=8)
    "Of a sample, in pixels."
    width: int = Field(512, ge=8)
    "Of a sample, in pixels."
    prompts_per_round: int = Field(8, ge=1)
    "Prompts that are rolled out at a time."
    steps_per_round: int = Field(1, ge=1)
    "Optimiser steps on the rollouts of a round."
    held_out_prompts: int = Field(0, ge=0)
    "Prompts of the training split that are not learnt from: reward and measures are taken of the policy's samples of them."
    measures: tuple[AnyReward, ...] = ()
    "Measures of held-out prompts that are not rewarded; their weighted sum is what `stop` watches."
    measure_every: int = Field(10, ge=1)
    "Rounds between two measurements of the held-out prompts."
    stop: StopRule | None = None
    "Ends the training where the reward rises and the measure falls."
    reference: Literal["own", "copy"] = Field("own", exclude=True)
    "Own: the model without its adapter, where one is trained, else a frozen copy."
    trainer: TrainerOptions = TrainerOptions(learning_rate=1e-4, batch=64, engine=EngineOptions(zero=1))
    "Steps, batch (states per step), learning rate, engine."
    rollout_prompts: int = Field(8, ge=1, exclude=True)
    "Prompts that a worker rolls out at once. It changes memory, not results."
    rounds_kept: int = Field(2, ge=1, exclude=True)
    "Rounds whose tensors are kept for a run that is killed; older ones are rolled out again."
    checkpointing: bool = Field(False, exclude=True)
    "Recompute activations in the backward pass: less memory, a third more time, the same numbers."
    previews: Previews = Field(Previews(), exclude=True)
    trackers: Trackers = Field(Trackers(), exclude=True)
    "Where metrics go besides TensorBoard and JSONL."
    base_precision: BasePrecision = "unquantised"
    "Of the frozen weights under a LoRA."
    comfyui: bool = False
    "Write the adapter a second time under ComfyUI's keys."
    resources: Resources = Field(Resources(workers=2), exclude=True)

    @model_validator(mode="after")
    def _possible(self) -> Reinforce:
        self.trainer.require_workers(self.resources.workers)
        for term in (*self.rewards, *self.measures):
            term.refuse(self.policy)
            _ = term.shares
        if self.policy.reads_first_frame:
            raise ConfigError(
                f"reinforce: {self.policy.name} starts from a first frame, which a prompt lacks; train a text model"
            )
        require_frozen(self.base_precision, self.adapter)
        if self.adapter.kind == "lora" and self.adapter.dropout:
            raise ConfigError(
                f"reinforce: dropout = {self.adapter.dropout} of the LoRA makes the update compute other log-probabilities "
                "than the rollout stored; set it to 0"
            )
        per_round = self.prompts_per_round * self.method.per_prompt()
        if per_round % self.trainer.batch or self.steps_per_round * self.trainer.batch % per_round:
            raise ConfigError(
                f"reinforce: a round of {self.prompts_per_round} prompts has {per_round} states; "
                f"batch = {self.trainer.batch} must divide them, and {self.steps_per_round} steps per round must be whole "
                f"passes: give batch = {per_round}, or {max(1, per_round // self.trainer.batch)} steps per round"
            )
        if self.trainer.epochs is not None:
            raise ConfigError("reinforce: rounds have no epochs; give steps")
        for name in ("steps", "checkpoint_every"):
            value = getattr(self.trainer, name)
            if value % self.steps_per_round:
                raise ConfigError(
                    f"reinforce: {name} = {value} is no multiple of the {self.steps_per_round} steps per round; a run is "
                    "saved between rounds only"
                )
        workers, engine = self.resources.workers, self.trainer.engine
        divided = engine.kind == "deepspeed" and engine.zero == 3
        if divided and self.base_precision != "unquantised":
            raise ConfigError(
                f"reinforce: base_precision = {self.base_precision}: ZeRO 3 cannot divide quantised weights; use ZeRO 2"
            )
        if divided and (self.prompts_per_round % workers or self.held_out_prompts % workers):
            raise ConfigError(
                f"reinforce: under ZeRO 3 all {workers} workers must make the same number of forward passes; give a "
                f"multiple of {workers} prompts per round (now {self.prompts_per_round}) and held-out prompts (now "
                f"{self.held_out_prompts})"
            )
        if self.prompts_per_round < workers:
            raise ConfigError(f"reinforce: {self.prompts_per_round} prompts per round for {workers} workers; give each one")
        if self.stop is not None and not (self.measures and self.held_out_prompts):
            raise ConfigError("reinforce: stop watches a measure of held-out prompts; give measures and held_out_prompts")
        if self.trainer.preview_every and not self.previews.texts:
            raise ConfigError("reinforce: preview_every is set but previews.texts is empty; name the texts to draw")
        if missing := set(self.previews.texts) - set(self.texts.texts):
            raise ConfigError(f"reinforce: the preview text {sorted(missing)[0]!r} is not encoded; add it to encode_texts")
        return self

    @property
    def reference_kind(self) -> ReferenceModel:
        """Where the reference's part comes from."""
        if self.method.reference == "none":
            return "none"
        return "adapter" if self.adapter.kind == "lora" and self.reference == "own" else "copy"

    @property
    def clips(self) -> bool:
        """Whether samples are clips."""
        return self.frames > 1

    def run(self, context: Context) -> Iterator[Curve]:
        """Every metric of every optimiser step, in the order of the steps."""
        self.trackers.check()
        training = Training(self.objective(context), self.trainer, self.trackers)
        length = f"{self.trainer.steps} steps in {self.trainer.steps // self.steps_per_round} rounds"
        checkpoint = run_training(self, training, context, length=length, logs=True)
        curve = list(curve_of(checkpoint))
        reason = ended_early(checkpoint)
        if reason is not None:
            length = f"{max(row.step for row in curve)} of {length}, ended early: {reason}"
            context.metric("ended_early", reason)
        rounds = max(row.step for row in curve) // self.steps_per_round
        folder = context.scratch / f"{self.name}-{self.key}"
        context.emit("rollouts", RolloutFiles(folder).numbers(rounds=rounds))
        card = tuned_card(
            self.policy,
            placed=self.policy.placed(context),
            adapter=self.adapter,
            method=self.method.kind,
            length=length,
            clips=self.clips,
            lineage=context.lineage(),
            settings=self.description,
            curve=curve,
        )
        (context.weights_out / CARD).write_text(card)
        yield from curve

    def require_here(self) -> None:
        """The trackers are installed, their servers answer, and the weights are whole."""
        self.trackers.check()
        self.policy.require_whole()
        require_quantiser(self.base_precision)

    def demand(self, inputs: Inputs) -> str:
        """Steps and rounds, forwards of a round, and GPUs."""
        prompts, states = self.prompts_per_round, self.prompts_per_round * self.method.per_prompt()
        rounds = self.trainer.steps // self.steps_per_round
        told = f"{self.trainer.steps} steps in {rounds} rounds of {prompts} prompts, {states} states"
        gpus = super().demand(inputs)
        return "; ".join(part for part in (told, gpus) if part)

    def objective(self, context: Context) -> OnlineObjective:
        """What the workers are sent."""
        policy = self.policy.placed(context)
        policy.refuse_other()
        policy.refuse_latents_of(self.texts.encoders.family.placed(context), stage=self.name)
        learnt, held = self._prompts(context)
        family, start = origin(self.policy, self.start, context)
        weights = Arithmetic.of(self.trainer.engine, self.adapter, base=self.base_precision).weights
        return OnlineObjective(
            policy=PolicySpec(
                family,
                self.adapter,
                start,
                self.checkpointing,
                weights,
                self.method.guidance,
                base_precision=self.base_precision,
            ),
            method=self.method,
            rewards=self.rewards,
            prompts=tuple(learnt),
            encoded=context.lookup(self.texts),
            empty=self.texts.text_id(""),
            shape=(self.frames, self.height, self.width),
            prompts_per_round=self.prompts_per_round,
            steps_per_round=self.steps_per_round,
            reference=self.reference_kind,
            places=FoundWeights(self._weights(context)),
            described=self.description,
            seed=self.trainer.seed,
            measured=HeldOut(tuple(held), self.measures, self.measure_every, self.stop),
            at_once=self.rollout_prompts,
            rounds_kept=self.rounds_kept,
            previews=self.previews.spec(self.texts.text_id) if self.trainer.preview_every else None,
            comfyui=self.comfyui,
        )

    def _prompts(self, context: Context) -> tuple[Sequence[OnlinePrompt], Sequence[OnlinePrompt]]:
        """The prompts to learn from, and those put aside, by hash."""
        table = context.table(self.texts.prompts, ["text", "split", "expectation"]).to_pylist()
        found = [
            OnlinePrompt(self.texts.text_id(row["text"]), row["text"], row["expectation"])
            for row in table
            if row["split"] == "train"
        ]
        found.sort(key=lambda prompt: seed_of("held out", prompt.text))
        held, learnt = found[: self.held_out_prompts], found[self.held_out_prompts :]
        if not learnt:
            raise ConfigError(
                f"reinforce: {len(found)} training prompts, of which {self.held_out_prompts} are held out; add some"
            )
        return learnt, held

    def _weights(self, context: Context) -> dict[str, Path]:
        """The weights of every stage that a reward stands on."""
        made: dict[str, Stage] = {
            path: stage for path, stage in self.parents.items() if path.split("[")[0] in ("rewards", "measures")
        }
        return {stage.key: context.weights(stage).resolve() for stage in made.values()}
