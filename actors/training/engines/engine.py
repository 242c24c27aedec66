"""What a training engine offers: gradients, one optimiser step, and a state that no number of workers is part of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from infra.config import Config
from infra.lazy import lazy

if TYPE_CHECKING:
    import torch
    from torch import nn
else:
    torch = lazy("torch")

STEP = "step"

State = dict[str, "torch.Tensor"]
"""`param/NAME` and each moment of the optimiser (`exp_avg/NAME`, …) of every trained parameter, whole and in fp32; `step`.

With an average of the parameters also `ema/NAME`.
"""

Cast = Callable[["nn.Module"], "nn.Module"]
"""How an engine computes: the module that runs another one's forward pass in the engine's precision."""


def uncast(module: nn.Module) -> nn.Module:
    """The cast of an engine that computes in the parameters' own dtype: the module itself."""
    return module


class AdamW(Config):
    """Adam with decoupled weight decay: two moments of the size of every trained parameter."""

    kind: Literal["adamw"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.99)
    """Decay per step of the first and of the second moment."""
    epsilon: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    """Share of a weight that one step removes, as a multiple of the learning rate."""

    def build(self, parameters: list[nn.Parameter], *, learning_rate: float) -> torch.optim.Optimizer:
        """torch's AdamW, on a CPU in its fused form, which is faster than the default loop over parameters."""
        return torch.optim.AdamW(
            parameters,
            lr=learning_rate,
            betas=self.betas,
            eps=self.epsilon,
            weight_decay=self.weight_decay,
            fused=True if all(parameter.device.type == "cpu" for parameter in parameters) else None,
        )

    def moments(self, shape: Sequence[int]) -> dict[str, tuple[int, ...]]:
        """The state of a parameter of this shape: names and shapes."""
        return {"exp_avg": tuple(shape), "exp_avg_sq": tuple(shape)}


class Adafactor(Config):
    """Adafactor without a first moment and at the given rate (Shazeer & Stern, 2018): Diffusion-DPO's choice for SDXL.

    The second moment of a matrix is kept as the means of its rows and columns. DeepSpeed hands an optimiser flat pieces of
    the parameters, which have neither: plain torch only.
    """

    kind: Literal["adafactor"] = "adafactor"
    epsilon: float = Field(1e-30, gt=0)
    """Added to squared gradients."""
    threshold: float = Field(1.0, gt=0)
    """Largest root mean square of a parameter's update before the learning rate."""
    decay: float = Field(0.8, gt=0)
    """The second moment of step n forgets its past with weight n^-decay."""
    weight_decay: float = Field(0.0, ge=0)
    """Share of a weight that one step removes, as a multiple of the learning rate."""

    def build(self, parameters: list[nn.Parameter], *, learning_rate: float) -> torch.optim.Optimizer:
        """The one of transformers: torch's multiplies the rate by the parameter's own size, which public code does not."""
        from transformers.optimization import Adafactor as Implementation

        return Implementation(
            parameters,
            lr=learning_rate,
            eps=(self.epsilon, 1e-3),
            clip_threshold=self.threshold,
            decay_rate=-self.decay,
            weight_decay=self.weight_decay,
            scale_parameter=False,
            relative_step=False,
        )

    def moments(self, shape: Sequence[int]) -> dict[str, tuple[int, ...]]:
        """The state of a parameter of this shape: rows and columns of what has two dimensions or more."""
        whole = tuple(shape)
        if len(whole) < 2:
            return {"exp_avg_sq": whole}
        return {"exp_avg_sq_row": whole[:-1], "exp_avg_sq_col": (*whole[:-2], whole[-1])}


AnyOptimizer = Annotated[AdamW | Adafactor, Field(discriminator="kind")]
"""An optimiser: the type of an option."""


class EngineOptions(Config):
    """Options of the training engine."""

    kind: Literal["torch", "deepspeed"] = "deepspeed"
    zero: Literal[1, 2, 3] = 1
    """What DeepSpeed divides among the workers: 1 optimiser states, 2 and gradients, 3 and parameters."""
    bf16: bool = False
    """Forward and backward in bfloat16, optimiser and master parameters in fp32. DeepSpeed keeps a bfloat16 copy of all
    parameters to compute with; torch casts at each use."""
    offload: Literal["none", "optimizer", "all"] = Field("none", exclude=True)
    """Kept in the host's memory (DeepSpeed only): optimiser states with fp32 masters, or (ZeRO 3) parameters too."""

    @property
    def keeps_masters(self) -> bool:
        """Whether the engine has fp32 copies of its own, so that the model's trained parameters need not be fp32."""
        return self.kind == "deepspeed" and self.bf16

    def cast(self, device: torch.device) -> Cast:
        """The engine's cast, for the trained model and for every other that must compute as it does."""
        from actors.training.engines.precision import Autocast

        return partial(Autocast, device=device) if self.bf16 else uncast

    @model_validator(mode="after")
    def _possible(self) -> EngineOptions:
        if self.offload != "none" and self.kind == "torch":
            raise ValueError(f"offload = {self.offload!r} needs kind = 'deepspeed'")
        if self.offload == "all" and self.zero != 3:
            raise ValueError(
                f"offload = 'all' needs zero = 3, not {self.zero}: only there parameters are divided; use 'optimizer'"
            )
        return self


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
        """Takes moments, step and average up from `state`; the parameters were loaded before the engine was built."""


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters with a gradient, by name, in the model's order."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def in_fp32(model: nn.Module) -> None:
    """Makes every trained parameter fp32: an update is smaller than what bfloat16 can tell apart."""
    for parameter in trained_parameters(model).values():
        parameter.data = parameter.data.float()


def part_of(state: State, kind: str) -> State:
    """`param`, `ema` or a moment of every trained parameter, by its name."""
    return {key.removeprefix(f"{kind}/"): value for key, value in state.items() if key.startswith(f"{kind}/")}


def load_parameters(model: nn.Module, state: State) -> None:
    """Copies `param/NAME` into the model, before an engine divides it; names must agree exactly."""
    trained = trained_parameters(model)
    stored = part_of(state, "param")
    if stored.keys() != trained.keys():
        strange = sorted(stored.keys() ^ trained.keys())
        raise ValueError(f"the checkpoint trains other parameters than this model, {strange[0]!r} for one")
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(stored[name])
