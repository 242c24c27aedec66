"""Means over a batch that is spread over passes and workers, of numbers that some of the examples may not have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from infra.lazy import lazy

if TYPE_CHECKING:
    import torch
    import torch.distributed as dist
else:
    torch, dist = lazy("torch"), lazy("torch.distributed")


class Sums:
    """Sums and counts by name."""

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor | None] = {}  # float64[2]: of the values, of their number

    def add(self, values: Mapping[str, torch.Tensor | None]) -> None:
        """Adds metrics with one number per example; None if these examples have none."""
        for name, each in values.items():
            before = self._sums.setdefault(name, None)
            if each is None:
                continue
            total = each.detach().double().sum()
            found = torch.stack([total, torch.full_like(total, each.numel())])
            self._sums[name] = found if before is None else before + found

    def means(self, world: int) -> dict[str, float | None]:
        """Means over all ranks, equal on all; None if no example of any rank had the number. Called by all ranks together.

        The ranks need not have the same names: one of them may have had no example with such a number.
        """
        names = list(dict.fromkeys(together(list(self._sums), world)))
        if not names:
            return {}
        held = {name: total for name, total in self._sums.items() if total is not None}
        nothing = torch.zeros(2, dtype=torch.float64, device=next(iter(held.values())).device if held else _device())
        totals = torch.stack([held.get(name, nothing) for name in names])
        if world > 1:
            dist.all_reduce(totals)
        return {name: total / count if count else None for name, (total, count) in zip(names, totals.tolist(), strict=True)}


def _device() -> torch.device:
    """The device on which a rank without numbers takes part in a collective operation."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def together(names: list[str], world: int) -> list[str]:
    """The names of all ranks, in the ranks' order. Called by all ranks together."""
    if world == 1:
        return names
    found: list[Any] = [None] * world
    dist.all_gather_object(found, names)
    return [name for part in found for name in part]
