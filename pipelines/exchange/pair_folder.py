"""A folder with one subfolder per pair, for data that people lay out by hand.

    NAME/prompt.txt
    NAME/winner.EXT  NAME/loser.EXT                    the winner is a
    NAME/a.EXT       NAME/b.EXT      NAME/choice.txt   a, b or tie
    NAME/generators.txt                                optional: generators of a (winner) and of b (loser), on two lines

EXT is any ending. Subfolders may lie at any depth. The second form is written.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from actors.media import ending
from infra.store.files import Manifest
from pipelines.exchange.media import inside
from pipelines.exchange.pairs import CHOICES, UNKNOWN, BadRow, Fault, Format, Layout, Listing, Media, PairWithMedia, Row

TEXTS = PROMPT, CHOICE, GENERATORS = "prompt.txt", "choice.txt", "generators.txt"
SIDES = (("winner", "loser"), ("a", "b"))
STEMS = {stem for sides in SIDES for stem in sides}


class PairFolder(Format):
    """One subfolder per pair, as the module describes it."""

    name: ClassVar = "pair_folder"
    silent: ClassVar = "agreement, scores and margins by dimension"

    def sources(self, listing: Listing) -> Listing:
        """Every subfolder that holds a prompt or a side, with the hash of its files."""
        found: list[tuple[str, bytes]] = []
        open: list[tuple[str, Any]] = []  # folders that later names may still be in, each inside the one before
        for name, digest in listing.items():
            while open and not name.startswith(f"{open[-1][0]}/"):
                found.append(_closed(*open.pop()))
            folder, _, file = name.rpartition("/")
            if not folder or not (file in TEXTS or _stem(file) in STEMS):
                continue
            if not open or open[-1][0] != folder:
                open.append((folder, hashlib.sha256()))
            open[-1][1].update(repr((file, digest)).encode())
        found += [_closed(*one) for one in open]
        found.sort()
        return Manifest([folder for folder, _ in found], b"".join(digest for _, digest in found))

    def rows(self, folder: Path, name: str, *, renamed: Mapping[str, str]) -> Iterator[Row | Fault]:
        """The pair of one subfolder."""
        del renamed
        try:
            yield _read(folder, name)
        except (BadRow, OSError, UnicodeDecodeError) as error:
            yield Fault("", 0, str(error))

    def write(self, pairs: Iterable[PairWithMedia], folder: Path, *, layout: Layout) -> None:
        """Writes a thousand pairs per folder."""
        del layout
        for number, pair in enumerate(pairs):
            place = folder / f"{number // 1000:05d}" / f"{number % 1000:03d}"
            place.mkdir(parents=True)
            (place / PROMPT).write_text(pair.prompt, encoding="utf-8")
            (place / CHOICE).write_text(pair.choice)
            (place / GENERATORS).write_text(f"{pair.generator_a}\n{pair.generator_b}\n", encoding="utf-8")
            for side, data in (("a", pair.a), ("b", pair.b)):
                (place / f"{side}{ending(data)}").write_bytes(data)


def _closed(folder: str, content: Any) -> tuple[str, bytes]:
    return folder, content.digest()


def _read(root: Path, pair: str) -> Row:
    folder = root / pair
    files, names = os.listdir(folder), {}  # noqa: PTH208, a Path for each takes as long as reading it
    for name in sorted(files):
        stem = _stem(name)
        if stem in STEMS and names.setdefault(stem, name) != name:
            raise BadRow(f"it holds {names[stem]} and {name}; which of them is meant?")
    whole = [sides for sides in SIDES if all(side in names for side in sides)]
    if PROMPT not in files:
        raise BadRow(f"no {PROMPT} in it")
    if len(whole) != 1:
        raise BadRow(f"it must hold winner and loser, or a and b; it holds {', '.join(sorted(names)) or 'neither'}")
    first, second = whole[0]
    choice = "a"
    if first == "a":
        if CHOICE not in files:
            raise BadRow(f"no {CHOICE} in it; it must name the better of a and b, or tie")
        choice = _text(root, f"{pair}/{CHOICE}").strip()
        if choice not in CHOICES:
            raise BadRow(f"{CHOICE} holds {choice!r}, which is none of a, b, tie")
    makers = [UNKNOWN, UNKNOWN]
    if GENERATORS in files:
        makers = _text(root, f"{pair}/{GENERATORS}").splitlines()
        if len(makers) != 2:
            raise BadRow(f"{GENERATORS} has {len(makers)} lines and must have two")
    return Row(
        place="",
        number=0,
        prompt=_text(root, f"{pair}/{PROMPT}"),
        a=Media(path=names[first]),
        b=Media(path=names[second]),
        choice=choice,
        generator_a=makers[0].strip() or UNKNOWN,
        generator_b=makers[1].strip() or UNKNOWN,
    )


def _stem(name: str) -> str:
    return name.rpartition(".")[0] or name


def _text(root: Path, name: str) -> str:
    path = root / name
    if path.is_symlink():  # folders that are links are not listed, so only the file itself may lead out of the root
        path = inside(root, name)
    return path.read_text(encoding="utf-8")
