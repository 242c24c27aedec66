"""GPUs and memory that a preference tuning asks for, in the words of `plan`."""

from __future__ import annotations

import math

from actors.training.options import TrainerOptions
from infra.dag.stage import Resources
from pipelines.models.adapter import Adapter
from pipelines.models.families.base import Family
from pipelines.models.memory import Architecture, rank_memory
from pipelines.models.quantised import BasePrecision
from pipelines.training.buckets import Buckets
from pipelines.training.preference import ReferenceKind


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
