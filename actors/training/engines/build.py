"""Builds the engine that the options name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.training.engines.engine import AdamW, AnyOptimizer, Engine, EngineOptions

if TYPE_CHECKING:
    import torch
    from torch import nn


def build_engine(
    model: nn.Module,
    *,
    options: EngineOptions,
    optimizer: AnyOptimizer,
    clip: float,
    ema: float | None = None,
    passes: int,
    device: torch.device,
) -> Engine:
    """Returns the engine that the options name.

    `clip`: largest gradient norm; `ema`: decay per step of an average of the parameters, None for none; `passes`: backward
    passes per step.
    """
    if options.kind == "torch":
        from actors.training.engines.torch import TorchEngine

        return TorchEngine(model, optimizer=optimizer, clip=clip, ema=ema, cast=options.cast(device))
    assert isinstance(optimizer, AdamW), "TrainerOptions refuses every other optimiser with DeepSpeed"
    from actors.training.engines.deepspeed import DeepSpeedEngine

    return DeepSpeedEngine(model, optimizer=optimizer, clip=clip, ema=ema, options=options, passes=passes, device=device)
