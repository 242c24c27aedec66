"""Which sampling steps of a rollout are stochastic; the others are deterministic.

Steps are indices from the noise end: step i of T goes from time s_i to s_{i+1}, s_0 = 1. The last step, T - 1, is never
stochastic: its noise would stay in the picture.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from infra.config import Config, ConfigError


class StepWindow(Config, ABC):
    """A choice of stochastic steps."""

    @abstractmethod
    def steps(self, total: int, *, number: int = 0) -> tuple[int, ...]:
        """Stochastic steps of `total`, ascending; `number` is the round of training. ConfigError where it does not fit."""


class NoSteps(StepWindow):
    """None: the whole rollout is deterministic."""

    kind: Literal["none"] = "none"

    def steps(self, total: int, *, number: int = 0) -> tuple[int, ...]:
        """()."""
        del total, number
        return ()


class EveryStep(StepWindow):
    """Every step but the last (Flow-GRPO, DanceGRPO, Step-GRPO), from a first one on (SPO's divert_start is 4, LPO's 0)."""

    kind: Literal["every"] = "every"
    first: int = Field(0, ge=0)
    """Steps before it are deterministic."""

    def steps(self, total: int, *, number: int = 0) -> tuple[int, ...]:
        """first ... total - 2."""
        del number
        return _fitting(range(self.first, total - 1), total=total, option=f"first = {self.first}")


class LastSteps(StepWindow):
    """The last steps before the final one."""

    kind: Literal["last"] = "last"
    count: int = Field(ge=1)
    """Number of stochastic steps."""

    def steps(self, total: int, *, number: int = 0) -> tuple[int, ...]:
        """total - 1 - count ... total - 2."""
        del number
        return _fitting(range(total - 1 - self.count, total - 1), total=total, option=f"count = {self.count}")


class SpreadSteps(StepWindow):
    """TAPO's W_T: first + floor(i T / n) for i = 0 ... n - 1 (SLRM + TAPO, Algorithm 1).

    The paper gives no t_init and counts steps in both directions; here they count from the noise end. 1 is the default, for
    the first step always injects the full noise level and inflates the variance for good.
    """

    kind: Literal["spread"] = "spread"
    count: int = Field(8, ge=1)
    """n, the number of stochastic steps."""
    first: int = Field(1, ge=0)
    """t_init, the first stochastic step; n = 16 of 20 steps needs 0."""

    def steps(self, total: int, *, number: int = 0) -> tuple[int, ...]:
        """For 20 steps and n = 8: 1, 3, 6, 8, 11, 13, 16, 18."""
        del number
        chosen = [self.first + i * total // self.count for i in range(self.count)]
        return _fitting(chosen, total=total, option=f"count = {self.count} from first = {self.first}")


class SlidingSteps(StepWindow):
    """A short window that moves towards the data as training goes on (MixGRPO, Li et al., 2025), then begins again.

    How the window goes on after its last place is a choice here.
    """

    kind: Literal["sliding"] = "sliding"
    size: int = Field(4, ge=1)
    """Stochastic steps at a time."""
    rounds: int = Field(25, ge=1)
    """Rounds before the window moves."""
    stride: int = Field(1, ge=1)
    """By how many steps it moves."""

    def steps(self, total: int, *, number: int = 0) -> tuple[int, ...]:
        """`size` neighbouring steps."""
        places = max(total - 1 - self.size, 0) // self.stride + 1
        start = number // self.rounds % places * self.stride
        return _fitting(range(start, start + self.size), total=total, option=f"size = {self.size}")


Window = Annotated[NoSteps | EveryStep | LastSteps | SpreadSteps | SlidingSteps, Field(discriminator="kind")]
"""Which steps are stochastic: the type of an option."""


def random_share(steps: Sequence[int], *, share: float, seed: int) -> tuple[int, ...]:
    """A random share of the stochastic steps, at least one, ascending: DanceGRPO learns from 0.6 of them."""
    count = max(1, int(share * len(steps)))
    return tuple(sorted(random.Random(seed).sample(list(steps), min(count, len(steps)))))


def _fitting(steps: Sequence[int], *, total: int, option: str) -> tuple[int, ...]:
    if not steps or steps[0] < 0 or steps[-1] > total - 2 or len(set(steps)) < len(steps):
        raise ConfigError(
            f"stochastic steps {list(steps)} ({option}) do not fit {total} sampling steps: they lie in 0 to {total - 2}, "
            "each once, for noise of the last step would stay in the picture; take fewer steps or begin earlier"
        )
    return tuple(steps)
