"""The head of two published scorers: five linear layers without activations between them.

LAION's aesthetic predictor and ImageReward have the same one. Dropout lies between its layers while it is trained, which
is why the layers are numbered 0, 2, 4, 6, 7.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from infra.lazy import lazy

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")

WIDTHS = (1024, 128, 64, 16, 1)
NUMBERS = (0, 2, 4, 6, 7)
NAMES = tuple(f"layers.{number}.{kind}" for number in NUMBERS for kind in ("weight", "bias"))
"""Names of its tensors, as published."""


def linear_head(width: int) -> torch.nn.ModuleDict:
    """The layers with random weights, for features of a width; the names of its tensors are `NAMES`."""
    widths = (width, *WIDTHS)
    layers = {str(number): torch.nn.Linear(widths[place], widths[place + 1]) for place, number in enumerate(NUMBERS)}
    return torch.nn.ModuleDict({"layers": torch.nn.ModuleDict(layers)})


def apply_head(head: torch.nn.ModuleDict, features: torch.Tensor) -> torch.Tensor:
    """float[n] of float[n, width]."""
    layers = head["layers"]
    assert isinstance(layers, torch.nn.ModuleDict)
    for number in NUMBERS:
        features = layers[str(number)](features)
    return features[:, 0]
