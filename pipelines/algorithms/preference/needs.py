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
        "a margin of gap `reward` and method rwr need a reward of every picture; give examples the scores of a scorer or a "
        "reward model for all of them, or choose gap `arena` or a number"
    ),
}
REMEDIES["reward_loser"] = REMEDIES["reward_winner"]
"""What to say where a needed column is missing."""
REWARDS = frozenset({"reward_winner", "reward_loser"})


def needed_columns(margin: Margin, *, confidence: LabelConfidence) -> frozenset[str]:
    """Names among those of `REMEDIES`."""
    found = frozenset({"probability"} if confidence.needs_probability else ())
    return found | REWARDS if margin.scale > 0 and margin.gap == "reward" else found
