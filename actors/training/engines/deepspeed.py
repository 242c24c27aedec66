"""DeepSpeed ZeRO 1, 2 and 3 behind the engine's interface.

DeepSpeed's own checkpoints belong to one number of workers. Here moments are gathered parameter by parameter on rank 0 and
written whole, so that a run may go on with another number of workers, another stage, or plain torch; the price is 12 bytes
of memory per trained parameter on rank 0's host.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from actors.training.engines.engine import STEP, AdamW, Engine, EngineOptions, State, trained_parameters

MOMENTS = tuple(AdamW().moments(()))


class DeepSpeedEngine(Engine):
    """Optimiser states (1), gradients (2) and parameters (3) divided among the workers."""

    def __init__(
        self,
        model: nn.Module,
        *,
        optimizer: AdamW,
        clip: float,
        ema: float | None,
        options: EngineOptions,
        passes: int,
        device: torch.device,
    ) -> None:
        deepspeed = _import_deepspeed()
        if not dist.is_initialized():
            _alone(device)
        self.trained = trained_parameters(model)
        self.shapes = {name: parameter.shape for name, parameter in self.trained.items()}
        self.zero = options.zero
        self.engine, *_ = deepspeed.initialize(
            model=options.cast(device)(model),
            optimizer=optimizer.build(list(self.trained.values()), learning_rate=0.0),
            model_parameters=list(self.trained.values()),
            config=_settings(options, clip=clip, passes=passes),
            dist_init_required=False,
        )
        self.model = self.engine
        self.ema = ema
        self.averages = [] if ema is None else [flat.detach().clone() for flat in self._masters()]

    def backward(self, loss: torch.Tensor) -> None:
        """Adds to the gradients; DeepSpeed counts the passes and reduces at the last."""
        self.engine.backward(loss, scale_wrt_gas=False)
        if not self.engine.is_gradient_accumulation_boundary():
            self.engine.step()  # counts the pass, updates nothing

    def step(self, learning_rate: float) -> float:
        """Averages over ranks, clips and steps."""
        for group in self.engine.optimizer.param_groups:
            group["lr"] = learning_rate
        self.engine.step()
        if self.ema is not None:
            for average, flat in zip(self.averages, self._masters(), strict=True):
                average.lerp_(flat.detach(), 1 - self.ema)
        norm = float(self.engine.get_global_grad_norm())
        return norm if norm >= 0 else math.nan  # DeepSpeed returns -1 for a norm that is not finite

    def state(self) -> State | None:
        """Gathers one parameter after another, so that only rank 0 holds all of them."""
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        first = dist.get_rank() == 0
        count = self._step_count()
        found: State = {STEP: torch.tensor(count)}

        def keep(key: str, name: str, value: torch.Tensor | None) -> None:
            if first:
                whole = torch.zeros(self.shapes[name]) if value is None else value
                found[f"{key}/{name}"] = whole.detach().float().cpu().clone()

        for name, parameter in self.trained.items():
            keep("param", name, safe_get_full_fp32_param(parameter))
            for key in MOMENTS:
                keep(key, name, safe_get_full_optimizer_state(parameter, key) if count > 0 else None)
        if self.averages:
            with self._averages_in_place():
                for name, parameter in self.trained.items():
                    keep("ema", name, safe_get_full_fp32_param(parameter))
        return found if first else None

    def restore(self, state: State) -> None:
        """Fills every rank's share of the moments, of the average and of the fp32 masters."""
        optimizer = self.engine.optimizer
        for flat in self._masters():
            moments = {key: torch.zeros_like(flat) for key in MOMENTS}
            optimizer.optimizer.state[flat] = {STEP: state[STEP].clone()} | moments
        if self.zero < 3:
            optimizer._lazy_init_hp_params_optimizer_state()
        if self.averages:
            with self._averages_in_place():
                self._fill(state, source="ema", key="param")
        for key in ("param", *MOMENTS):
            self._fill(state, source=key, key=key)

    def _masters(self) -> list[torch.Tensor]:
        """This rank's share of the fp32 parameters, flat."""
        optimizer = self.engine.optimizer
        return optimizer.fp32_partitioned_groups_flat if self.zero == 3 else optimizer.single_partition_of_fp32_groups

    @contextmanager
    def _averages_in_place(self) -> Iterator[None]:
        """The average where the masters are, and back: it is gathered and divided as they are."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for average, flat in zip(self.averages, self._masters(), strict=True):
            held = flat.detach().clone()
            flat.data.copy_(average)  # in place: DeepSpeed's own views of it must follow
            average.copy_(held)

    def _fill(self, state: State, *, source: str, key: str) -> None:
        for name, parameter in self.trained.items():
            self._set(parameter, state[f"{source}/{name}"], key=key)

    def _set(self, parameter: nn.Parameter, value: torch.Tensor, *, key: str) -> None:
        from deepspeed.utils import (
            safe_set_full_fp32_param,
            safe_set_full_optimizer_state,
            safe_set_local_fp32_param,
            safe_set_local_optimizer_state,
        )

        value = value.to(self.engine.device)
        if self.zero < 3:
            if key == "param":
                safe_set_full_fp32_param(parameter, value)
            else:
                safe_set_full_optimizer_state(parameter, value, key)
            return
        share = _share(value, size=parameter.ds_tensor.ds_numel)  # pyright: ignore[reportAttributeAccessIssue]
        if key == "param":
            safe_set_local_fp32_param(parameter, share)
        else:
            safe_set_local_optimizer_state(parameter, share, key)

    def _step_count(self) -> float:
        states = list(self.engine.optimizer.optimizer.state.values())
        return float(states[0][STEP]) if states else 0.0


def _share(value: torch.Tensor, *, size: int) -> torch.Tensor:
    """This rank's part of a parameter that ZeRO 3 cut into parts of `size`, the last one padded with zeros."""
    padded = torch.zeros(size * dist.get_world_size(), dtype=value.dtype, device=value.device)
    padded[: value.numel()] = value.flatten()
    return padded.narrow(0, dist.get_rank() * size, size).clone()


def _settings(options: EngineOptions, *, clip: float, passes: int) -> dict[str, Any]:
    cuda = torch.cuda.is_available()
    host = {"device": "cpu", "pin_memory": cuda}
    # DeepSpeed's own linear layer, which it puts in place of torch's in the whole process, rounds once more before the bias
    # is added: in bfloat16 the model would not be its reference. It saves memory where activations are not checkpointed.
    zero: dict[str, Any] = {"stage": options.zero, "overlap_comm": cuda, "memory_efficient_linear": False}
    if options.offload != "none":
        zero["offload_optimizer"] = host
    if options.offload == "all":
        zero["offload_param"] = host
    return {
        "train_micro_batch_size_per_gpu": 1,  # bookkeeping only: the trainer weighs its losses itself
        "gradient_accumulation_steps": passes,
        "gradient_clipping": clip,
        "zero_optimization": zero,
        "bf16": {"enabled": options.bf16},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 2**31,
    }


def _import_deepspeed() -> Any:
    """DeepSpeed without the operator it would compile at its first use on a CPU."""
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    import deepspeed
    import deepspeed.ops
    from deepspeed.utils import logger

    logger.setLevel(logging.ERROR)
    if not torch.cuda.is_available():
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def _alone(device: torch.device) -> None:
    """A process group of this process, where no launcher made one."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed requires it
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
