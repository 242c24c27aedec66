"""GPUs, memory and GPU time that a preference tuning asks for, in the words of `plan`."""

from __future__ import annotations

import math

from actors.training.options import TrainerOptions
from infra.dag.foretold import GpuTime
from infra.dag.stage import Resources
from pipelines.models.adapter import Adapter
from pipelines.models.families.base import Family
from pipelines.models.memory import Architecture, rank_memory
from pipelines.models.quantised import BasePrecision
from pipelines.training.buckets import Buckets
from pipelines.training.preference import ReferenceKind

ASSUMED_SHARE, ASSUMED_PEAK, ASSUMED_DEVICE = 0.3, 989e12, "an H100"
"""Share of a device's dense bf16 FLOPs per second that training is assumed to reach; nobody has measured it here."""


def reckoned_time(
    architecture: Architecture,
    *,
    pairs: float,
    adapter: Adapter,
    reference: ReferenceKind,
    trains_losers: bool,
    checkpointing: bool,
    buckets: Buckets,
) -> GpuTime:
    """GPU time of training on so many pairs, steps times batch, by operations and a share of a device's peak.

    A backward pass repeats the products with weights for the inputs, and again for the weights where these are trained;
    those of attention twice. Checkpointing repeats the forward pass, a reference in memory adds one, and losers may have no
    backward pass. What a LoRA adds is left out.
    """
    side = math.isqrt(buckets.area)
    height, width = buckets.shape(side, side)
    tokens = architecture.tokens(height=height, width=width, frames=max(buckets.frames))
    weights = architecture.operations.per_token * tokens
    attention = architecture.operations.per_pair * tokens**2
    forward = weights + attention
    backward = (1 if adapter.kind == "lora" else 2) * weights + 2 * attention + checkpointing * forward
    flops = 2 * forward * (1 + (reference in ("adapter", "copy"))) + backward * (2 if trains_losers else 1)
    flops *= pairs
    share = f"an assumed {ASSUMED_SHARE:.0%} of {ASSUMED_DEVICE}'s {ASSUMED_PEAK / 1e12:.0f} TFLOP/s"
    return GpuTime(flops / (ASSUMED_SHARE * ASSUMED_PEAK), f"reckoned, not measured: {flops:.1e} FLOP at {share}")


def memory_demand(
    architecture: Architecture,
    policy: Family,
    *,
    adapter: Adapter,
    trainer: TrainerOptions,
    reference: ReferenceKind,
    checkpointing: bool,
    base_precision: BasePrecision = "unquantised",
    buckets: Buckets,
    resources: Resources,
) -> str:
    """GPUs, and the memory that each needs on the largest shape of the buckets."""
    engine, workers = trainer.engine, resources.workers
    side = round(math.sqrt(buckets.area))  # pairs that keep their own shapes are reckoned as squares of this area
    height, width = buckets.shape(side, side)
    lora = adapter if adapter.kind == "lora" else None
    memory = rank_memory(
        architecture,
        adapter=adapter.kind,
        rank=lora.rank if lora else 0,
        targets=(lora and lora.targets) or policy.lora_targets,
        zero=engine.zero if engine.kind == "deepspeed" else 0,
        workers=workers,
        offload=engine.offload,
        bf16=engine.bf16,
        ema=trainer.ema is not None,
        factored=trainer.optimizer.kind == "adafactor",
        reference="none" if reference == "cached" else reference,
        checkpointing=checkpointing,
        base_precision=base_precision,
        micro_batch=min(trainer.micro_batch, -(-trainer.batch // workers)),
        height=height,
        width=width,
        frames=max(buckets.frames),
    )
    host = f" and {memory.host:.1f} GiB of the host's memory" if memory.host else ""
    who = f"{workers} x {resources.gpus:g} GPU" if resources.gpus else f"{workers} workers without GPU"
    return f"{who}, {memory.total:.1f} GiB per rank{host}"
