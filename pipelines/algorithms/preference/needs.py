"""Which optional columns of the examples a margin and a confidence read."""

from __future__ import annotations

from pipelines.algorithms.preference.confidence import LabelConfidence
from pipelines.algorithms.preference.margin import Margin

REMEDIES = {
    "probability": (
        "soft and weighted labels need the probability that each label is right, and these labels have none: the share of "
        "jurors that agree is no probability; use the panel `calibrated` with labels of people, or confidence `hard`"
    ),
    "reward_winner": (
        "a margin of gap `reward` needs a reward of every picture, and these examples have none; give examples the scores "
        "of a scorer or a reward model, or choose gap `arena` or a number"
    ),
}
"""What to say where a needed column is missing."""


def needed_columns(margin: Margin, *, confidence: LabelConfidence) -> frozenset[str]:
    """Names among those of `REMEDIES`."""
    named = {"probability": confidence.needs_probability, "reward_winner": margin.scale > 0 and margin.gap == "reward"}
    return frozenset(name for name, needed in named.items() if needed)
