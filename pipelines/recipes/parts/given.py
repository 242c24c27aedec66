"""Flags that are lists of NAME=VALUE, as values by name; each raises ConfigError naming the flag and the remedy."""

from __future__ import annotations

from collections.abc import Sequence

from infra.config import ConfigError


def labels_of(given: Sequence[str], *, flag: str) -> dict[str, str]:
    """Node labels of LABEL=VALUE."""
    pairs = [item.partition("=") for item in given]
    for name, equals, value in pairs:
        if not (name and equals and value):
            raise ConfigError(f"{flag} {name}{equals}{value}: give LABEL=VALUE")
    return {name: value for name, _, value in pairs}


def quota_of(given: Sequence[str], names: Sequence[str]) -> dict[str, int]:
    """Numbers of pairs by generator of NAME=N; `names`: those of the roster."""
    found: dict[str, int] = {}
    for item in given:
        name, _, number = item.rpartition("=")
        if not number.isdecimal() or name not in names:
            raise ConfigError(f"--quota {item}: give NAME=N with a generator of the roster ({', '.join(names)})")
        found[name] = int(number)
    return found


def weights_of(dimensions: Sequence[str]) -> dict[str, float]:
    """Weights by dimension of NAME=WEIGHT, or of NAME, which weighs 1."""
    found: dict[str, float] = {}
    for given in dimensions:
        name, _, weight = given.partition("=")
        try:
            found[name] = float(weight or 1)
        except ValueError as error:
            raise ConfigError(f"--dimensions: {given!r} is not NAME or NAME=WEIGHT") from error
    return found
