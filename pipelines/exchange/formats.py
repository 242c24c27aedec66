"""Every format by its name."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Literal

from infra.config import ConfigError
from pipelines.exchange.chosen_rejected import ChosenRejected
from pipelines.exchange.hpd import HPD
from pipelines.exchange.pair_folder import PairFolder
from pipelines.exchange.pairs import Format
from pipelines.exchange.pickapic import PickAPic
from pipelines.exchange.salon import Salon
from pipelines.exchange.videoalign import VideoAlign

FormatName = Literal["salon", "pickapic", "hpd", "videoalign", "chosen_rejected", "pair_folder"]
FORMATS: dict[str, Format] = {
    one.name: one for one in (Salon(), PickAPic(), HPD(), VideoAlign(), ChosenRejected(), PairFolder())
}


def format_named(name: str) -> Format:
    """The format of that name; raises ConfigError."""
    if name not in FORMATS:
        near = get_close_matches(name, FORMATS, n=1)
        raise ConfigError(
            f"unknown format {name!r}; " + (f"did you mean {near[0]}?" if near else f"known: {', '.join(FORMATS)}")
        )
    return FORMATS[name]


def renames(words: Sequence[str], *, format: str, flag: str) -> dict[str, str]:
    """Parses `old=new` words for reading into {the file's column: the format's name of it}.

    Raises ConfigError for a name that the format does not know or that is given twice.
    """
    known = format_named(format)
    found = _parted(words, flag=flag, meant=f"the file's column and its name in format {format}")
    for old, new in found.items():
        if not known.knows(new):
            raise _unknown(known, new, word=f"{flag} {old}={new}", known=known.columns)
    return found


def written_names(words: Sequence[str], *, format: str, flag: str) -> dict[str, str]:
    """Parses `old=new` words for writing into {the format's name of a column: its name in the files}.

    Raises ConfigError for a column that the format does not write, a name given twice, and a name that another column has.
    """
    known = format_named(format)
    written = tuple(name for name in known.columns if known.writes(name))
    found = _parted(words, flag=flag, meant=f"a column's name in format {format} and its name in the file")
    for old, new in found.items():
        if not known.writes(old):
            raise _unknown(known, old, word=f"{flag} {old}={new}", known=written)
        if known.writes(new) and new not in found and new != old:
            raise ConfigError(f"{flag} {old}={new}: {format} already writes a column {new!r}; choose another name")
    return found


def _parted(words: Sequence[str], *, flag: str, meant: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in words:
        old, equals, new = word.partition("=")
        if not (old and equals and new):
            raise ConfigError(f"{flag} {word}: give it as OLD=NEW, {meant}")
        if old in found or new in found.values():
            raise ConfigError(f"{flag} {word}: {old if old in found else new!r} is named twice; give each once")
        found[old] = new
    return found


def _unknown(format: Format, name: str, *, word: str, known: Sequence[str]) -> ConfigError:
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known) or 'none'}"
    return ConfigError(f"{word}: format {format.name} has no column {name!r}; {hint}")
