"""The arithmetic of a policy's forward pass, which follows from how it is trained and must be its reference's too.

A preference loss is beta times a small difference between the policy's errors and the reference's. Where the two compute in
other precisions, the difference is one of rounding: the first loss is not that of equal models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from actors.training.engines.engine import EngineOptions
from infra.config import Config
from pipelines.models.adapter import Full, LoRA
from pipelines.models.quantised import BasePrecision

if TYPE_CHECKING:
    import torch
    from torch import nn


class Arithmetic(Config):
    """How the weights of a denoiser are kept, and how it computes with them."""

    weights: Literal["float32", "bfloat16"] = "float32"
    """Of the weights as they are loaded; a model may keep some of them in float32."""
    autocast: bool = False
    """Matrix products in bfloat16, norms and sums in float32, whatever the weights are."""
    converted: bool = False
    """Every parameter is brought to bfloat16 after loading: the copy that DeepSpeed computes with."""

    base: BasePrecision = "unquantised"
    """Of the frozen weights under a LoRA: as they are loaded, or in four bits."""

    @classmethod
    def of(cls, engine: EngineOptions, adapter: LoRA | Full, *, base: BasePrecision = "unquantised") -> Arithmetic:
        """What an engine makes of a policy of which it trains the adapter.

        In bfloat16, trained weights need masters in float32: DeepSpeed keeps its own, plain torch trains the loaded ones.
        """
        if not engine.bf16:
            return cls(base=base)
        whole = adapter.kind == "full" and not engine.keeps_masters
        weights = "float32" if whole else "bfloat16"
        return cls(weights=weights, autocast=True, converted=engine.keeps_masters, base=base)

    def applied(self, model: nn.Module, *, device: torch.device) -> nn.Module:
        """The module to call in place of a model that was loaded with these weights; the model itself is converted."""
        if self.converted:  # DeepSpeed leaves buffers, such as tables of positions, as they are
            for parameter in model.parameters():
                if parameter.is_floating_point():  # quantised weights are bytes
                    parameter.data = parameter.data.bfloat16()
        if not self.autocast:
            return model
        from actors.training.engines.precision import Autocast

        return Autocast(model, device=device)
