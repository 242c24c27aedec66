"""What every format reads and writes: pairs, and where their pictures or clips are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

CHOICES = ("a", "b", "tie")
UNKNOWN = "unknown"
"""The generator of a sample whose files name none."""


class BadRow(ValueError):
    """Why a row cannot be used; the message is stored with the errors, after the row's file and place."""


@dataclass(frozen=True)
class Media:
    """Where one picture or clip is: in a column of the row's own Parquet file, or in a file of the folder."""

    column: str = ""
    path: str = ""
    """The path as the row gives it, relative to the row's file or to the folder."""


@dataclass(frozen=True)
class Row:
    """One pair as read from a file."""

    place: str
    """`line 3`, counted from 1, or `row 2`, counted from 0; "" if the pair is the whole file."""
    number: int
    """The row of a Parquet file; for other files a running number."""
    prompt: str
    a: Media
    b: Media
    choice: str
    """a, b or tie."""
    agreement: float = 1.0
    """Share of the voters who made this choice, in [0, 1]."""
    score: float | None = None
    """Log-odds of a over b; None stands for 1, -1 or 0 by the choice."""
    generator_a: str = UNKNOWN
    generator_b: str = UNKNOWN
    margins: Mapping[str, float] = field(default_factory=dict)
    """By how much a is better than b in each dimension."""
    subset: str = ""
    """Part of the data set that the pair belongs to ("text rendering"), "" if the files name none."""
    scores_a: Mapping[str, float] = field(default_factory=dict)
    """Scores of a by itself in each dimension, higher is better."""
    scores_b: Mapping[str, float] = field(default_factory=dict)
    own: str = ""
    """The data set's own id of the pair, "" if it has none. A second row with the same id is an error."""


@dataclass(frozen=True)
class Fault:
    """A row, or a whole file, that cannot be used."""

    place: str
    number: int
    reason: str


@dataclass(frozen=True)
class PairWithMedia:
    """One pair with the bytes of its two files."""

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
    subset: str = ""


@dataclass(frozen=True)
class Layout:
    """How pairs are to be written."""

    medium: str
    """Kind of sample: image or video."""
    dimensions: Sequence[str] = ()
    """Every dimension in which a pair may have a margin."""
    subsets: bool = False
    """Whether pairs name the part of the data set that they belong to."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """A column's name in the files, by the format's name of it."""


Listing = Mapping[str, str]
"""SHA-256 of every file of a folder by its relative name."""


class Format(ABC):
    """One way to keep pairs in a folder. Stateless."""

    name: ClassVar[str]
    holds: ClassVar[tuple[str, ...]] = ("image", "video")
    """Kinds of sample that the format can hold."""
    ties: ClassVar[bool] = True
    """Whether the format can hold ties."""
    silent: ClassVar[str]
    """What the format cannot hold, as shown to users."""
    columns: ClassVar[tuple[str, ...]] = ()
    """The format's column names, to which a file's columns may be mapped."""

    def knows(self, column: str) -> bool:
        """Whether the format has a column of this name."""
        return column in self.columns

    @abstractmethod
    def sources(self, listing: Listing) -> Listing:
        """The files (or subfolders) that hold rows: the hash of each by its relative name, in the order of the names."""

    @abstractmethod
    def rows(self, folder: Path, name: str, *, renamed: Mapping[str, str]) -> Iterator[Row | Fault]:
        """The pairs of one source of the folder, in order, read as a stream.

        What cannot be used is returned as a `Fault`; nothing is raised for it. No link that leads out of the folder is
        followed.
        """

    def writes(self, column: str) -> bool:
        """Whether the format writes a column of this name."""
        return self.knows(column)

    @abstractmethod
    def write(self, pairs: Iterable[PairWithMedia], folder: Path, *, layout: Layout) -> None:
        """Writes pairs into an empty folder, as a stream."""


def column_of(renamed: Mapping[str, str], available: Iterable[str]) -> dict[str, str]:
    """The file's column for each of the format's names; a mapped column replaces one that has the name itself."""
    return {renamed.get(own, own): own for own in sorted(available, key=lambda own: own in renamed)}


def decided(first: float, second: float) -> str:
    """a, b or tie, from the strengths of a and b."""
    return "a" if first > second else "b" if second > first else "tie"
