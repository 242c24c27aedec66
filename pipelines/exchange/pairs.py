"""What every format reads and writes: pairs, places in files, and where a picture or clip lies. No stage, no model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

CHOICES = ("a", "b", "tie")
UNKNOWN = "unknown"
"""The generator of a picture of which nobody says who made it."""


class BadRow(ValueError):
    """Why a row cannot be used; the message goes into the errors, after its file and place."""


@dataclass(frozen=True)
class Media:
    """Where one picture or clip lies: in a column of the row's own Parquet file, or in a file of the folder."""

    column: str = ""
    path: str = ""
    """As the row names it: relative to the row's file or to the folder."""


@dataclass(frozen=True)
class Row:
    """One pair as a file says it."""

    place: str
    """`line 3`, counted from 1, or `row 2`, counted from 0; "" where the pair is the file."""
    number: int
    """Its row of a Parquet file; elsewhere a running number."""
    prompt: str
    a: Media
    b: Media
    choice: str
    """a, b or tie."""
    agreement: float = 1.0
    """Share of the voters that said so, in [0, 1]."""
    score: float | None = None
    """Log-odds of a over b; None: 1, -1 or 0 by the choice."""
    generator_a: str = UNKNOWN
    generator_b: str = UNKNOWN
    margins: Mapping[str, float] = field(default_factory=dict)
    """By how much a is better than b, by dimension."""
    own: str = ""
    """Id the data set gives the pair; a second row with the same one is an error. "" where it gives none."""


@dataclass(frozen=True)
class Fault:
    """A row, or a whole file, that cannot be used."""

    place: str
    number: int
    reason: str


@dataclass(frozen=True)
class PairWithMedia:
    """One pair to write, its files at hand."""

    id: str
    prompt: str
    choice: str
    agreement: float
    score: float
    generator_a: str
    generator_b: str
    a: bytes
    b: bytes
    margins: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Layout:
    """How pairs are to be written."""

    medium: str
    """image or video."""
    dimensions: Sequence[str] = ()
    """Every name that margins may have."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """What the files call a column, by the format's name for it."""


Listing = Mapping[str, str]
"""SHA-256 of every file of a folder by its relative name."""


class Format(ABC):
    """One way to keep pairs in a folder. Stateless."""

    name: ClassVar[str]
    holds: ClassVar[tuple[str, ...]] = ("image", "video")
    """Media it can hold."""
    ties: ClassVar[bool] = True
    """Whether it can say that neither is better."""
    silent: ClassVar[str]
    """What of a pair it cannot say: for people."""
    columns: ClassVar[tuple[str, ...]] = ()
    """Names it knows: what a column may be renamed to."""

    def knows(self, column: str) -> bool:
        """Whether a column of this name means something."""
        return column in self.columns

    @abstractmethod
    def sources(self, listing: Listing) -> Listing:
        """What in the folder holds rows: the hash of its content by its relative name, in the order of the names."""

    @abstractmethod
    def rows(self, folder: Path, name: str, *, renamed: Mapping[str, str]) -> Iterator[Row | Fault]:
        """The pairs of one source of the folder, in order, read as a stream.

        What is wrong in the file is a `Fault` and raises nothing. No link that leads out of the folder is followed.
        """

    def writes(self, column: str) -> bool:
        """Whether there is a column of this name in what it writes."""
        return self.knows(column)

    @abstractmethod
    def write(self, pairs: Iterable[PairWithMedia], folder: Path, *, layout: Layout) -> None:
        """Writes pairs into an empty folder, as a stream."""


def column_of(renamed: Mapping[str, str], available: Iterable[str]) -> dict[str, str]:
    """The file's own column by the name the format knows it by; a renamed one goes before one that has the name already."""
    return {renamed.get(own, own): own for own in sorted(available, key=lambda own: own in renamed)}


def decided(first: float, second: float) -> str:
    """a, b or tie of two strengths."""
    return "a" if first > second else "b" if second > first else "tie"
