"""Sampling with a denoiser in training: its pipeline's loop, with the denoiser as an engine wrapped it.

diffusers' own `__call__` would call the bare module and want every component; this is the same loop over the same
scheduler (the tests compare them), and one loop for all families.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from infra.config import ConfigError
from infra.lazy import lazy
from pipelines.models.families.loaded import DenoiserCall, stack

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pipelines.models.families.base import Condition
    from pipelines.models.families.loaded import LoadedFamily
else:
    torch = lazy("torch")


def sample(
    loaded: LoadedFamily,
    model: nn.Module,
    conditions: Sequence[Condition],
    *,
    negative: Condition | None,
    shape: Sequence[int],
    steps: int,
    guidance: float,
    seeds: Sequence[int],
) -> torch.Tensor:
    """Latents fp32[b, *shape], where the model is; noise is drawn from each sample's seed on the CPU.

    Without `negative`, or at the guidance scale that changes nothing (1; Z-Image: 0), the condition alone is read. A
    guidance-distilled denoiser is told the guidance and reads no `negative`. Dropout is off meanwhile.
    """
    if len(conditions) != len(seeds):
        raise ConfigError(f"{len(conditions)} conditions but {len(seeds)} seeds; give one per sample")
    device = next(loaded.model.parameters()).device
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    scheduler = type(loaded.pipeline.scheduler).from_config(loaded.pipeline.scheduler.config)
    loaded.set_timesteps(scheduler, steps=steps, shape=shape, device=device)
    x = torch.stack([torch.randn(*shape, generator=each) for each in generators]).to(device)
    if loaded.path.prediction == "flow":
        scheduler.set_begin_index(0)
    else:
        x = x * scheduler.init_noise_sigma
    condition = stack(conditions)
    guided = negative is not None and guidance != loaded.unguided and not loaded.distilled
    # What is no text (a first frame) is read without the text, too.
    free = stack([each | negative for each in conditions]) if guided and negative is not None else None
    # Schedulers that add noise at each step draw it from the same generators.
    drawn = {"generator": generators} if "generator" in inspect.signature(scheduler.step).parameters else {}
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for timestep in scheduler.timesteps:
                answer = _guided(loaded, model, scheduler, x, timestep, condition=condition, free=free, guidance=guidance)
                x = scheduler.step(answer, timestep, x, return_dict=False, **drawn)[0]
    finally:
        model.train(training)
    return loaded.finished(x, condition)


def _guided(
    loaded: LoadedFamily,
    model: nn.Module,
    scheduler: Any,
    x: torch.Tensor,
    timestep: torch.Tensor,
    *,
    condition: Condition,
    free: Condition | None,
    guidance: float,
) -> torch.Tensor:
    """The conditioned answer, guided away from the one without a text where there is one, in fp32."""
    scaled = x if loaded.path.prediction == "flow" else scheduler.scale_model_input(x, timestep)
    times = timestep.to(x.device).expand(len(x))

    def asked(read: Condition) -> torch.Tensor:
        return loaded.denoise(model, DenoiserCall(scaled, times, read, guidance=guidance)).float()

    conditioned = asked(condition)
    if free is None:
        return conditioned
    return loaded.guided(conditioned, asked(free), guidance=guidance)
