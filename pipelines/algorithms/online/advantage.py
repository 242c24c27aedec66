"""Advantages within a group of samples of one prompt (or candidates of one state): how much better than its group.

A = (r - mean of the group) / (std + eps), clipped (Shao et al., 2024, GRPO; Liu et al., 2025, Flow-GRPO). Implementations
differ in the set that std is taken over, in ddof and in eps, so all three are options. A reward that is NaN is unknown: it
is left out of mean and std, and its advantage is 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from jaxtyping import Bool, Float
from pydantic import Field

from infra.config import Config
from infra.lazy import lazy

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")


@dataclass(frozen=True, eq=False)
class Advantages:
    """Advantages of groups, and which groups are learnt from."""

    values: Float[torch.Tensor, "groups members"]
    """0 where a reward is unknown and in a group that is not used."""
    used: Bool[torch.Tensor, " groups"]
    spread: Float[torch.Tensor, " groups"]
    """Standard deviation of the known rewards of each group; 0 with fewer than two of them."""

    @property
    def dropped(self) -> float:
        """Share of the groups that teach nothing, in [0, 1]."""
        return 1 - float(self.used.float().mean())


class GroupAdvantage(Config):
    """How rewards become advantages."""

    over: Literal["group", "round"] = "group"
    """What std is of: each group, or all rewards of the round (Flow-GRPO's public code). The mean is the group's."""
    ddof: int = Field(0, ge=0, le=1)
    """0 divides by n (Flow-GRPO, Step-GRPO), 1 by n - 1 (DanceGRPO)."""
    eps: float = Field(1e-4, ge=0, allow_inf_nan=False)
    """Added to std."""
    clip: float | None = Field(5.0, gt=0, allow_inf_nan=False)
    """Largest absolute advantage; None for no limit."""
    min_spread: float = Field(0.0, ge=0, le=1)
    """Share of the typical std below which a group is dropped: normalising what hardly differs amplifies noise. 0.1 for
    Step-GRPO, whose late candidates are nearly equal; 0 drops groups of equal rewards alone."""

    def of(
        self, rewards: Float[torch.Tensor, "groups members"], *, typical: Float[torch.Tensor, " groups"] | None = None
    ) -> Advantages:
        """Advantages of rewards, in fp32; `typical` is what `min_spread` is a share of (the running median by step)."""
        rewards = rewards.float()
        known = rewards.isfinite()
        count = known.sum(1)
        zeroed = torch.where(known, rewards, 0.0)
        centred = torch.where(known, rewards - (zeroed.sum(1) / count.clamp(min=1))[:, None], 0.0)
        squares = centred.square().sum(1)
        spread = (squares / (count - self.ddof).clamp(min=1)).sqrt()
        equal = torch.where(known, rewards, -torch.inf).amax(1) == torch.where(known, rewards, torch.inf).amin(1)
        used = (count > 1) & ~equal  # rounding of the mean gives equal rewards a spread that is not 0
        if typical is not None:
            used = used & (spread >= self.min_spread * typical)
        scale = spread if self.over == "group" else self._round_spread(rewards, known).expand_as(spread)
        values = centred / (scale + self.eps)[:, None]
        if self.clip is not None:
            values = values.clamp(-self.clip, self.clip)
        return Advantages(values=torch.where(used[:, None], values, 0.0), used=used, spread=torch.where(equal, 0.0, spread))

    def _round_spread(
        self, rewards: Float[torch.Tensor, "groups members"], known: Bool[torch.Tensor, "groups members"]
    ) -> Float[torch.Tensor, ""]:
        given = rewards[known]
        if len(given) <= self.ddof:
            return torch.zeros((), device=rewards.device)
        return given.std(correction=self.ddof)
