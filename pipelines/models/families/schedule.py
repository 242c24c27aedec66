"""The noise path that a generator's own scheduler was made for, and the shift of its timesteps.

Flow schedulers say x_t = (1 - t) x_0 + t x_1; all others define alphas_cumprod by their betas. SD3 and Wan shift times
by a constant, FLUX by one that grows with the picture: sigma = s t / (1 + (s - 1) t) in either case, with s = exp(mu)
for the exponential kind (Esser et al., 2024, eq. 23; diffusers' FlowMatchEulerDiscreteScheduler).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from infra.config import ConfigError

if TYPE_CHECKING:
    import torch

    from pipelines.algorithms.diffusion.path import NoisePath

FLOW_SCHEDULER = "FlowMatch"  # beginning of their class names
DIFFUSION: tuple[Literal["epsilon", "v_prediction"], ...] = ("epsilon", "v_prediction")


def prediction_of(config: Mapping[str, Any]) -> Literal["flow", "epsilon", "v_prediction"]:
    """What a scheduler of that config steps along; raises ConfigError where it is none of the three."""
    if str(config.get("_class_name", "")).startswith(FLOW_SCHEDULER) or config.get("use_flow_sigmas", False):
        return "flow"
    given = config.get("prediction_type", "epsilon")
    for known in DIFFUSION:
        if given == known:
            return known
    raise ConfigError(f"scheduler: prediction_type = {given!r} is not trained here; use a flow scheduler or {DIFFUSION}")


def noise_path(scheduler: Any) -> NoisePath:
    """The path a diffusers scheduler steps along."""
    from pipelines.algorithms.diffusion.ddpm import DiffusionPath
    from pipelines.algorithms.diffusion.path import FlowPath

    name = type(scheduler).__name__
    prediction = prediction_of({**scheduler.config, "_class_name": name})
    if prediction == "flow":
        return FlowPath()
    alphas = getattr(scheduler, "alphas_cumprod", None)
    if alphas is None:
        raise ConfigError(f"scheduler {name} has no alphas_cumprod; save the pipeline with DDIM, PNDM or Euler")
    final = float(getattr(scheduler, "final_alpha_cumprod", 1.0))
    return DiffusionPath(alphas_cumprod=alphas.float().clone(), prediction=prediction, final=final)


def resolution_mu(config: Mapping[str, Any], *, tokens: int) -> float:
    """mu of dynamic shifting: linear in the number of tokens, base_shift to max_shift (FLUX)."""
    fewest, most = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    return low + (high - low) * (tokens - fewest) / (most - fewest)


def set_shifted(scheduler: Any, *, steps: int, tokens: int, device: torch.device) -> None:
    """Prepares a flow scheduler for that many tokens as the pipelines with dynamic shifting do: from 1 to 1 / steps."""
    mu = resolution_mu(scheduler.config, tokens=tokens)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), device=device, mu=mu)


def time_shift(config: Mapping[str, Any], *, tokens: int) -> float:
    """The shift s of a flow scheduler for a latent of that many tokens; 1 changes nothing."""
    if not config.get("use_dynamic_shifting", False):
        return float(config.get("flow_shift", config.get("shift", 1.0)))
    mu = resolution_mu(config, tokens=tokens)
    return mu if config.get("time_shift_type", "exponential") == "linear" else math.exp(mu)
