"""Plain torch: the reference the other engines are measured against. Gradients are averaged by one all-reduce per step."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn

from actors.training.engines.engine import STEP, AnyOptimizer, Cast, Engine, State, trained_parameters


class TorchEngine(Engine):
    """Plain torch: every worker holds all parameters and optimiser states."""

    def __init__(
        self,
        model: nn.Module,
        *,
        optimizer: AnyOptimizer,
        clip: float,
        ema: float | None,
        cast: Cast,
    ) -> None:
        self.trained = trained_parameters(model)
        self.model = cast(model)
        self.moments = {name: optimizer.moments(parameter.shape) for name, parameter in self.trained.items()}
        self.optimizer = optimizer.build(list(self.trained.values()), learning_rate=0.0)
        self.clip = clip
        self.ema = ema
        started = {} if ema is None else self.trained
        self.averages = {name: parameter.detach().clone() for name, parameter in started.items()}

    def backward(self, loss: torch.Tensor) -> None:
        """Adds to .grad."""
        loss.backward()

    def step(self, learning_rate: float) -> float:
        """Averages over ranks, clips by the norm, and steps."""
        self._average()
        norm = nn.utils.clip_grad_norm_(self.trained.values(), self.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.ema is not None:
            for name, average in self.averages.items():
                average.lerp_(self.trained[name].detach(), 1 - self.ema)
        return float(norm)

    def state(self) -> State | None:
        """The state of rank 0; all ranks hold the same."""
        if dist.is_initialized() and dist.get_rank() > 0:
            return None
        found: State = {STEP: torch.tensor(0.0)}
        for name, parameter in self.trained.items():
            held = self.optimizer.state.get(parameter, {})
            found[f"param/{name}"] = parameter.detach().float().cpu().clone()
            for key, shape in self.moments[name].items():
                value = held[key] if held else torch.zeros(shape)
                found[f"{key}/{name}"] = value.detach().float().cpu().clone()
            if name in self.averages:
                found[f"ema/{name}"] = self.averages[name].cpu().clone()
            if held:
                found[STEP] = torch.tensor(float(held[STEP]))
        return found

    def restore(self, state: State) -> None:
        """Sets the moments and the average of every parameter."""
        for name, parameter in self.trained.items():
            self.optimizer.state[parameter] = {STEP: state[STEP].clone()} | {
                key: state[f"{key}/{name}"].to(parameter) for key in self.moments[name]
            }
            if name in self.averages:
                self.averages[name].copy_(state[f"ema/{name}"])

    def _average(self) -> None:
        if not dist.is_initialized() or dist.get_world_size() == 1:
            return
        gradients = [parameter.grad for parameter in self.trained.values() if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        for gradient, whole in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(whole.view_as(gradient))
