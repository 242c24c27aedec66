"""Margins of preference losses: by how much the winner should win (ArenaPO, eq. 14; Section 5.5 for fixed margins)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from jaxtyping import Float
from pydantic import Field

from infra.config import Config
from infra.lazy import lazy

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")


class NoMargin(Config):
    """Plain DPO: any win is enough."""

    kind: Literal["none"] = "none"

    def margins(self, gap: Float[torch.Tensor, " pairs"]) -> Float[torch.Tensor, " pairs"]:
        """Zeros."""
        return torch.zeros_like(gap)


class FixedMargin(Config):
    """The same margin for every pair: the paper's ablation."""

    kind: Literal["fixed"] = "fixed"
    value: float = Field(ge=0)
    """Margin on the scale of `inside`."""

    def margins(self, gap: Float[torch.Tensor, " pairs"]) -> Float[torch.Tensor, " pairs"]:
        """`value` for every pair."""
        return torch.full_like(gap, self.value)


class ArenaMargin(Config):
    """A margin in proportion to the posterior quality gap of the pair (`rating.gap`)."""

    kind: Literal["arena"] = "arena"
    scale: float = Field(0.1, ge=0)
    """c: aligns the gap with `inside`; searched on a grid in the paper. 0 is plain DPO."""

    def margins(self, gap: Float[torch.Tensor, " pairs"]) -> Float[torch.Tensor, " pairs"]:
        """c times the gap; `gap` is 0 or more."""
        return self.scale * gap


Margin = Annotated[NoMargin | FixedMargin | ArenaMargin, Field(discriminator="kind")]
"""By how much the winner should win: the type of an option."""
