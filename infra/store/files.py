"""Folders of weights or data as part of a config: identified by their content, never by their path."""

from __future__ import annotations

import hashlib
import os
from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.config import Config, ConfigError
from infra.store.tables import sha256_of

UNSAFE = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".msgpack", ".h5"}
PROSE = ".md"
DIGEST = 32
"""Bytes per SHA-256 digest."""
SCANS = 16
"""Number of folders whose scans are kept in memory."""


class Manifest(Mapping[str, str]):
    """Every file below a folder by its relative name, in the order of the names: the SHA-256 of its content.

    Half a million files take 60 MB: names are strings in a list, digests are joined in one bytes object.
    """

    def __init__(self, names: Sequence[str], digests: bytes) -> None:
        self._names = names
        self._digests = digests

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __getitem__(self, name: str) -> str:
        place = self.place_of(name)
        if place is None:
            raise KeyError(name)
        return self.at(place)[1].hex()

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.place_of(name) is not None

    def place_of(self, name: str) -> int | None:
        """The index of a name; None if there is no such file."""
        place = bisect_left(self._names, name)
        return place if place < len(self._names) and self._names[place] == name else None

    def at(self, place: int) -> tuple[str, bytes]:
        """The name and digest at an index."""
        return self._names[place], self._digests[place * DIGEST : (place + 1) * DIGEST]

    def only(self, wanted: Callable[[str], bool]) -> Manifest:
        """The manifest of those files whose names satisfy `wanted`."""
        places = array("q", (place for place, name in enumerate(self._names) if wanted(name)))
        if len(places) == len(self._names):
            return self
        return Manifest([self._names[place] for place in places], b"".join(self.at(place)[1] for place in places))

    @property
    def digest(self) -> str:
        """The hash of names and contents together, 24 hex characters."""
        whole = hashlib.sha256()
        for name in self._names:
            whole.update(f"{len(name)} {name}\n".encode(errors="surrogateescape"))
        whole.update(self._digests)
        return whole.hexdigest()[:24]


@dataclass(frozen=True)
class _Scan:
    """A folder at its last scan: a file of unchanged size and modification time is not hashed again."""

    found: Manifest
    stamps: array[int]  # size and time of change, by turns

    def known(self, name: str, size: int, changed: int) -> tuple[str, bytes] | None:
        """The name, as the string that is there already, and the hash."""
        place = self.found.place_of(name)
        if place is None or (self.stamps[2 * place], self.stamps[2 * place + 1]) != (size, changed):
            return None
        return self.found.at(place)


_scans: OrderedDict[Path, _Scan] = OrderedDict()


def manifest(folder: Path) -> Manifest:
    """Every file below a folder but Markdown (*.md). Folders that are links are not entered; links to files are files."""
    folder = folder.absolute()
    before = _scans.get(folder)
    names, digests, stamps = [], bytearray(), array("q")
    for name, size, changed in _files(str(folder), "") if folder.is_dir() else ():
        known = before.known(name, size, changed) if before else None
        own, digest = known or (name, bytes.fromhex(sha256_of(folder / name)))
        names.append(own)
        digests += digest
        stamps.extend((size, changed))
    found = Manifest(names, bytes(digests))
    _scans[folder] = _Scan(found, stamps)
    _scans.move_to_end(folder)
    while len(_scans) > SCANS:
        _scans.popitem(last=False)
    return found


def _files(folder: str, within: str) -> Iterator[tuple[str, int, int]]:
    """(relative name, size, time of change in ns) in the order of the names, of which a folder's ends in a slash."""
    with os.scandir(folder) as entries:
        found = sorted(
            (entry.name + "/" if entry.is_dir(follow_symlinks=False) else entry.name, entry) for entry in entries
        )
    for name, entry in found:
        if name.endswith("/"):
            yield from _files(entry.path, within + name)
        elif entry.is_file() and not name.endswith(PROSE):
            stat = entry.stat()
            yield within + name, stat.st_size, stat.st_mtime_ns


def refuse_unsafe(folder: Path) -> None:
    """Raises ConfigError where a folder holds weights in a format that runs code when it is read."""
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; give one with safetensors weights, or with data")
    for path in sorted(folder.rglob("*")):
        if path.suffix in UNSAFE:
            raise ConfigError(f"{path} is not safetensors and is not read: unpickling runs code; convert to safetensors")


class Folder(Config):
    """A folder of weights and configuration, or of data, on this machine or a shared disk."""

    path: str

    @property
    def local(self) -> Path:
        """The folder's path."""
        return Path(self.path)

    def folder(self, places: Any) -> Path:
        """The folder's path; `places` is needed only for weights that a stage made."""
        return self.local

    def identity(self) -> dict[str, Any]:
        """Content hash; raises ConfigError where the folder is missing or holds anything but safetensors weights."""
        refuse_unsafe(self.local)
        return {"folder": manifest(self.local).digest}
