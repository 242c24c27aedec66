"""The miniature world's captions: six tasks after GenEval, each with the structure that it asks for.

A caption is one point of a mixed-radix space (phrasing x content), so that captions are drawn without enumerating the
space. The split is a hash of the text: train and evaluation captions are disjoint whatever the count and the seed.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice, permutations
from math import prod
from typing import Literal

from infra.config import ConfigError

Split = Literal["train", "evaluation"]

TASKS = ("single", "two", "counting", "colours", "position", "attribution")
SHAPES = ("circle", "square", "triangle", "cross")
COLOURS = ("red", "green", "blue", "yellow", "purple", "cyan")
RELATIONS = ("left", "right", "above", "below")

EVALUATION_SHARE = 4  # one text in four is held out

_PREFIXES = (
    "",
    "a picture of",
    "a photo of",
    "an image of",
    "a drawing of",
    "a sketch of",
    "a view of",
    "a picture with",
    "an image with",
    "a drawing with",
    "a picture showing",
    "an image showing",
)
_SUFFIXES = ("", "on grey", "against grey", "on plain grey", "in view", "and nothing else")
_SHORT_SUFFIXES = _SUFFIXES[:3]
_ONE = ("a", "one", "a single")
_NUMBERS = {2: "two", 3: "three", 4: "four"}
_NOUNS = (
    ("circle", "circle"),
    ("square", "square"),
    ("triangle", "triangle"),
    ("cross", "cross"),
    ("disc", "circle"),
    ("box", "square"),
    ("plus", "cross"),
)
_PLURALS = {"cross": "crosses", "box": "boxes", "plus": "pluses"}
_RELATION_WORDS = (
    ("left of", "left"),
    ("right of", "right"),
    ("above", "above"),
    ("over", "above"),
    ("below", "below"),
    ("under", "below"),
)
_NOUN_PAIRS = tuple((a, b) for a, b in permutations(_NOUNS, 2) if a[1] != b[1])
_COLOUR_PAIRS = tuple(permutations(COLOURS, 2))


@dataclass(frozen=True)
class Asked:
    """`count` objects of one shape; `colour` None leaves the colour free."""

    shape: str
    colour: str | None = None
    count: int = 1


@dataclass(frozen=True)
class Expectation:
    """What a caption asks for, no more and no less; `relation` places the first object relative to the second."""

    objects: tuple[Asked, ...]
    relation: str | None = None

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces."""
        objects = [{"shape": o.shape, "colour": o.colour, "count": o.count} for o in self.objects]
        return json.dumps({"objects": objects, "relation": self.relation}, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Expectation:
        """The inverse of `to_json`; a text of another form is a ConfigError that shows it."""
        try:
            value = json.loads(text)
            objects = tuple(Asked(o["shape"], o["colour"], int(o["count"])) for o in value["objects"])
            relation = value["relation"]
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"expectation {text!r} cannot be read: {error!r}; write it with to_json()") from error
        known = all(o.shape in SHAPES and o.colour in (None, *COLOURS) and o.count > 0 for o in objects)
        if not objects or not known or relation not in (None, *RELATIONS):
            raise ConfigError(f"expectation {text!r} asks for what this world has not; it has {SHAPES}, {COLOURS}")
        return cls(objects, relation)

    @property
    def total(self) -> int:
        """How many objects are asked for."""
        return sum(o.count for o in self.objects)


@dataclass(frozen=True)
class Caption:
    """A text, its task and the structure it asks for."""

    text: str
    task: str
    expectation: Expectation


def split_of(text: str) -> Split:
    """The split a text belongs to for ever: one in four is held out for evaluation."""
    digest = blake2b(text.encode(), digest_size=8).digest()
    return "evaluation" if int.from_bytes(digest, "big") % EVALUATION_SHARE == 0 else "train"


def captions(count: int, *, split: Split, seed: int) -> list[Caption]:
    """`count` distinct captions, the tasks in turn; a larger count with the same seed begins with the same captions."""
    if count < 0 or split not in ("train", "evaluation"):
        raise ConfigError(f"captions: count = {count}, split = {split!r} is refused; use a count >= 0, train or evaluation")
    columns = []
    for place, task in enumerate(TASKS):
        wanted = (count - place + len(TASKS) - 1) // len(TASKS)
        found = list(islice(task_captions(task, split=split, seed=seed), max(wanted, 0)))
        if len(found) < wanted:
            raise ConfigError(
                f"captions: task {task!r} has {len(found)} {split} captions, {wanted} are asked for; "
                f"ask for at most {len(found) * len(TASKS)} captions in all"
            )
        columns.append(found)
    return [columns[i % len(TASKS)][i // len(TASKS)] for i in range(count)]


def task_captions(task: str, *, split: Split, seed: int) -> Iterator[Caption]:
    """Every caption of one task and split once, in an order given by the seed."""
    radices, compose = _SPACES[task]
    for index in _permutation(prod(radices), seed=f"{seed}/{task}"):
        text, expectation = compose(*_digits(index, radices))
        if split_of(text) == split:
            yield Caption(text, task, expectation)


def vocabulary() -> list[str]:
    """Every word of the grammar, sorted."""
    nouns = [noun for noun, _ in _NOUNS]
    phrases = [*_PREFIXES, *_SUFFIXES, *_ONE, *_NUMBERS.values(), *nouns, *map(_plural, nouns), *COLOURS, "and"]
    return sorted({word for phrase in [*phrases, *(words for words, _ in _RELATION_WORDS)] for word in phrase.split()})


def _permutation(size: int, *, seed: str) -> Iterator[int]:
    """0 .. size-1 in random order, in memory proportional to what is taken (a lazy Fisher-Yates shuffle)."""
    generator, moved = random.Random(seed), {}
    for i in range(size):
        j = i + int(generator.random() * (size - i))
        yield moved.get(j, j)
        moved[j] = moved.pop(i, i)


def _digits(index: int, radices: tuple[int, ...]) -> Iterator[int]:
    for radix in radices:
        index, digit = divmod(index, radix)
        yield digit


def _plural(noun: str) -> str:
    return _PLURALS.get(noun, noun + "s")


def _join(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def _single(prefix: int, suffix: int, one: int, noun: int) -> tuple[str, Expectation]:
    name, shape = _NOUNS[noun]
    return _join(_PREFIXES[prefix], _ONE[one], name, _SUFFIXES[suffix]), Expectation((Asked(shape),))


def _two(prefix: int, suffix: int, pair: int) -> tuple[str, Expectation]:
    (first, shape), (second, other) = _NOUN_PAIRS[pair]
    text = _join(_PREFIXES[prefix], "a", first, "and a", second, _SUFFIXES[suffix])
    return text, Expectation((Asked(shape), Asked(other)))


def _counting(prefix: int, suffix: int, noun: int, number: int) -> tuple[str, Expectation]:
    name, shape = _NOUNS[noun]
    text = _join(_PREFIXES[prefix], _NUMBERS[number + 2], _plural(name), _SUFFIXES[suffix])
    return text, Expectation((Asked(shape, None, number + 2),))


def _colours(prefix: int, suffix: int, noun: int, colour: int) -> tuple[str, Expectation]:
    name, shape = _NOUNS[noun]
    text = _join(_PREFIXES[prefix], "a", COLOURS[colour], name, _SUFFIXES[suffix])
    return text, Expectation((Asked(shape, COLOURS[colour]),))


def _position(prefix: int, suffix: int, pair: int, relation: int) -> tuple[str, Expectation]:
    (first, shape), (second, other) = _NOUN_PAIRS[pair]
    words, meaning = _RELATION_WORDS[relation]
    text = _join(_PREFIXES[prefix], "a", first, words, "a", second, _SUFFIXES[suffix])
    return text, Expectation((Asked(shape), Asked(other)), meaning)


def _attribution(prefix: int, suffix: int, pair: int, colours: int) -> tuple[str, Expectation]:
    (first, shape), (second, other) = _NOUN_PAIRS[pair]
    colour, tint = _COLOUR_PAIRS[colours]
    text = _join(_PREFIXES[prefix], "a", colour, first, "and a", tint, second, _SHORT_SUFFIXES[suffix])
    return text, Expectation((Asked(shape, colour), Asked(other, tint)))


_Compose = Callable[..., tuple[str, Expectation]]
_LONG, _SHORT = (len(_PREFIXES), len(_SUFFIXES)), (len(_PREFIXES), len(_SHORT_SUFFIXES))
_SPACES: dict[str, tuple[tuple[int, ...], _Compose]] = {
    "single": ((*_LONG, len(_ONE), len(_NOUNS)), _single),
    "two": ((*_LONG, len(_NOUN_PAIRS)), _two),
    "counting": ((*_LONG, len(_NOUNS), len(_NUMBERS)), _counting),
    "colours": ((*_LONG, len(_NOUNS), len(COLOURS)), _colours),
    "position": ((*_SHORT, len(_NOUN_PAIRS), len(_RELATION_WORDS)), _position),
    "attribution": ((*_SHORT, len(_NOUN_PAIRS), len(_COLOUR_PAIRS)), _attribution),
}
