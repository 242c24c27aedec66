"""Computing in bfloat16 with what must be exact left in fp32: torch's autocast around a model's forward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class Autocast(nn.Module):
    """A model whose forward pass runs under bfloat16 autocast: matrix products in bfloat16, norms and sums in fp32.

    Inputs may stay in fp32, so that no time is rounded to the eight bits of a bfloat16 before it is embedded; outputs are
    what the model's last operation gives, and their errors are for the objective to take in fp32.
    """

    def __init__(self, inner: nn.Module, *, device: torch.device) -> None:
        super().__init__()
        self.inner = inner
        self.kind = device.type

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Calls the model under autocast."""
        with torch.autocast(self.kind, dtype=torch.bfloat16):
            return self.inner(*inputs, **named)
