"""What a training engine offers: gradients, one optimiser step, and a state that no number of workers is part of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from infra.config import Config
from infra.lazy import lazy

if TYPE_CHECKING:
    import torch
    from torch import nn
else:
    torch = lazy("torch")

MOMENTS = ("exp_avg", "exp_avg_sq")
STEP = "step"

State = dict[str, "torch.Tensor"]
"""`param/NAME`, `exp_avg/NAME`, `exp_avg_sq/NAME` for every trained parameter, whole and in fp32, and `step`."""


class AdamW(Config):
    """The optimiser, built by the trainer and passed to the engine."""

    betas: tuple[float, float] = (0.9, 0.99)
    """Decay of the first and the second moment."""
    epsilon: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.0, ge=0)

    def build(self, parameters: list[nn.Parameter], *, learning_rate: float) -> torch.optim.AdamW:
        """torch's own."""
        return torch.optim.AdamW(
            parameters, lr=learning_rate, betas=self.betas, eps=self.epsilon, weight_decay=self.weight_decay
        )


class EngineOptions(Config):
    """Which engine steps."""

    kind: Literal["torch", "deepspeed"] = "deepspeed"
    zero: Literal[1, 2, 3] = 1
    """What DeepSpeed divides among the workers: 1 optimiser states, 2 and gradients, 3 and parameters."""
    bf16: bool = False
    """Parameters in bfloat16 with fp32 masters (DeepSpeed only)."""


class Engine(ABC):
    """A model with its optimiser on one or many workers. Gradients are summed over the backward passes of a step.

    `model` is called for forward passes; `trained` maps a parameter's name to it. Every method is called by all ranks.
    """

    model: nn.Module
    trained: dict[str, nn.Parameter]

    @abstractmethod
    def backward(self, loss: torch.Tensor) -> None:
        """Adds this rank's gradient; at the step the ranks' are averaged."""

    @abstractmethod
    def step(self, learning_rate: float) -> float:
        """Clips, updates, forgets the gradients; returns the gradient's norm before clipping, equal on all ranks."""

    @abstractmethod
    def state(self) -> State | None:
        """All that the next step depends on, on the CPU of rank 0; None on the others."""

    @abstractmethod
    def restore(self, state: State) -> None:
        """Takes moments and step up from `state`; the parameters were loaded before the engine was built."""


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters with a gradient, by name, in the model's order."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def load_parameters(model: nn.Module, state: State) -> None:
    """Copies `param/NAME` into the model, before an engine divides it; names must agree exactly."""
    trained = trained_parameters(model)
    stored = {key.removeprefix("param/"): value for key, value in state.items() if key.startswith("param/")}
    if stored.keys() != trained.keys():
        strange = sorted(stored.keys() ^ trained.keys())
        raise ValueError(f"the checkpoint trains other parameters than this model, {strange[0]!r} for one")
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(stored[name])


def build_engine(
    model: nn.Module, *, options: EngineOptions, optimizer: AdamW, clip: float, passes: int, device: torch.device
) -> Engine:
    """The engine the options name. `clip`: largest gradient norm; `passes`: backward passes a step."""
    arguments: dict[str, Any] = {"optimizer": optimizer, "clip": clip}
    if options.kind == "torch":
        from actors.engines.torch import TorchEngine

        return TorchEngine(model, **arguments)
    from actors.engines.deepspeed import DeepSpeedEngine

    return DeepSpeedEngine(model, **arguments, options=options, passes=passes, device=device)
