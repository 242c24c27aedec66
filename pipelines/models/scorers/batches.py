"""Batches of one size: what a model says of a picture then depends on that picture alone, to the last bit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class FilledBatch(Generic[T]):
    """Some items, of which the first `counted` are meant."""

    items: list[T]
    counted: int


def equal_batches(items: Iterable[T], *, size: int) -> Iterator[FilledBatch[T]]:
    """Batches of exactly `size` items, in order; the last one is filled up with repetitions of its last item.

    Matrix products of one shape are computed alike for every row, whatever the others hold; another number of rows
    changes the last bits.
    """
    gathered: list[T] = []
    for item in items:
        gathered.append(item)
        if len(gathered) == size:
            yield FilledBatch(gathered, size)
            gathered = []
    if gathered:
        yield FilledBatch(gathered + gathered[-1:] * (size - len(gathered)), len(gathered))
