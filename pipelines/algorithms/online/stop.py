"""When an online training ends early: the reward rises while what was not rewarded falls."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from infra.config import Config


class StopRule(Config):
    """Ends a training that learns to please its reward and nothing else, by measurements of held-out prompts."""

    patience: int = Field(3, ge=1)
    """Measurements in a row that must agree."""
    drop: float = Field(0.0, ge=0, allow_inf_nan=False)
    """By how much the held-out measure must have fallen below its best, on its own scale."""

    def reason(self, rewards: Sequence[float], measures: Sequence[float]) -> str | None:
        """Why to end; None to go on.

        rewards, measures: of the same measurements, in order. The best measurement is the first with the highest measure.
        The training ends where all of the last `patience` ones came after it, with a higher reward and a measure that is
        lower by more than `drop`.

        >>> StopRule(patience=2).reason([0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.55, 0.5])
        'the reward rose from 0.2 to 0.4 while the held-out measure fell from 0.6 to 0.5, in 2 measurements in a row'
        >>> StopRule(patience=3).reason([0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.55, 0.5]) is None
        True
        """
        if len(measures) <= self.patience:
            return None
        best = max(range(len(measures)), key=measures.__getitem__)
        latest = range(len(measures) - self.patience, len(measures))
        worse = [
            place > best and rewards[place] > rewards[best] and measures[place] < measures[best] - self.drop
            for place in latest
        ]
        if not all(worse):
            return None
        return (
            f"the reward rose from {rewards[best]:.4g} to {rewards[-1]:.4g} while the held-out measure fell from "
            f"{measures[best]:.4g} to {measures[-1]:.4g}, in {self.patience} measurements in a row"
        )
