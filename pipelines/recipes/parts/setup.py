"""Where and how a recipe for a real generator trains: workers, precision, memory, previews, trackers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from actors.training.engines.engine import AnyOptimizer, EngineOptions
from actors.training.trackers.mlflow_runs import MLflow
from actors.training.trackers.tracker import Trackers
from actors.training.trackers.weights_and_biases import WandB
from infra.config import Config, ConfigError
from pipelines.models.quantised import BasePrecision
from pipelines.training.previews import Previews

ENCODED_ROWS = 16
"""Latents per file of `encode`: those of a clip have megabytes. One number for all recipes, which share latents by it."""


class Setup(Config):
    """Resources of training and encoding, precision, trackers and previews."""

    workers: Annotated[int, Field(ge=1, le=4096, description="training workers")] = 16
    gpus: Annotated[float, Field(ge=0, description="GPUs per training worker")] = 1.0
    encode_workers: Annotated[int, Field(ge=1, le=4096, description="actors that encode pictures and texts")] = 16
    encode_gpus: Annotated[float, Field(ge=0, description="GPUs per encoding actor")] = 1.0
    zero: Annotated[
        Literal["0", "1", "2", "3"] | None,
        Field(description="DeepSpeed ZeRO stage, or 0 for plain torch, which adafactor needs; 2, or 0 with adafactor"),
    ] = None
    offload: Annotated[Literal["none", "optimizer", "all"], Field(description="what lies in the host's memory")] = "none"
    micro_batch: Annotated[int, Field(ge=1, description="pairs per backward pass and GPU")] = 4
    precision: Annotated[
        Literal["bf16", "fp32"], Field(description="precision of weights and activations; losses are always fp32")
    ] = "bf16"
    base_precision: Annotated[
        BasePrecision,
        Field(description="weights under a LoRA: as loaded, or nf4 (4 bits, by bitsandbytes; a quarter of the memory)"),
    ] = "unquantised"
    draws: Annotated[
        int, Field(ge=0, description="cached draws of the reference per pair; 0 keeps the reference in memory")
    ] = 0
    ema: Annotated[float | None, Field(gt=0, lt=1, description="decay of an average of the weights, then exported")] = None
    preview_texts: Annotated[tuple[str, ...], Field(description="prompts to draw while training")] = ()
    preview_every: Annotated[int, Field(ge=0, description="steps between two drawings; 0 for none")] = 0
    comfyui: Annotated[bool, Field(description="write an adapter under ComfyUI's keys too")] = False
    wandb: Annotated[str, Field(description="project of Weights & Biases to log to")] = ""
    mlflow: Annotated[str, Field(description="URI of the MLflow server or store to log to")] = ""
    seed: Annotated[int, Field(ge=0, description="seed of the order of pairs, of noise and of times")] = 0

    def trackers(self) -> Trackers:
        """Trackers besides TensorBoard and JSON lines, which are always written."""
        return Trackers(
            wandb=WandB(project=self.wandb) if self.wandb else None, mlflow=MLflow(uri=self.mlflow) if self.mlflow else None
        )

    def without_draws(self) -> Setup:
        """The same without cached draws: for supervised training, which has no reference."""
        return self.model_copy(update={"draws": 0})

    @property
    def dtype(self) -> Literal["bfloat16", "float32"]:
        """Data type of the weights while they are trained."""
        return "bfloat16" if self.precision == "bf16" else "float32"

    def engine(self, optimizer: AnyOptimizer) -> EngineOptions:
        """DeepSpeed, or plain torch where the optimiser needs whole parameters or the user says so."""
        bf16 = self.precision == "bf16"
        factored = optimizer.kind == "adafactor"
        if factored and self.zero not in (None, "0"):
            raise ConfigError(
                f"--zero {self.zero}: adafactor needs whole parameters, which DeepSpeed divides; leave --zero out, or "
                "choose --optimizer adamw"
            )
        if factored or self.zero == "0":
            return EngineOptions(kind="torch", offload=self.offload, bf16=bf16)
        return EngineOptions(zero=int(self.zero or "2"), offload=self.offload, bf16=bf16)  # type: ignore[arg-type]

    def previews(self, area: int, *, frames: Sequence[int], multiple: int) -> Previews:
        """Previews are squares of about `area` pixels; a clip has the shortest of the lengths in `frames`."""
        pixels = max(multiple, round(math.sqrt(area) / multiple) * multiple)
        return Previews(texts=self.preview_texts, frames=min(frames), height=pixels, width=pixels)
