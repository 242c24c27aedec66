"""How well the text that a picture shows agrees with the text that it was asked to show.

Letters' case, full-width forms and white space do not count: a recogniser often loses the space between two words. The
three measures are those that text-rendering benchmarks report: exact match, 1 - edit distance / length (the "NED" of
CVTG-2K and the reward of Flow-GRPO) and word accuracy.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

QUOTES = re.compile(r'"([^"]+)"|“([^”]+)”|„([^“”]+)[“”]|«([^»]+)»|「([^」]+)」|(?<!\w)\'([^\']+)\'(?!\w)|‘([^’]+)’(?!\w)')
"""Text between quotation marks; an apostrophe within a word is none."""
PUNCTUATION = ".,;:!?\"'()[]{}“”‘’"


def quoted(prompt: str) -> list[str]:
    """The quoted parts of a prompt, in reading order.

    >>> quoted('a sign that says "OPEN" above a door named “No. 7”, the cat\\'s')
    ['OPEN', 'No. 7']
    """
    found = (next(part for part in match.groups() if part is not None) for match in QUOTES.finditer(prompt))
    return [part.strip() for part in found if part.strip()]


def exact_match(shown: str, *, asked: str) -> float:
    """1.0 where the whole text that is shown is the text that was asked for, otherwise 0.0."""
    return float(_letters(shown) == _letters(asked))


def similarity(shown: str, *, asked: str) -> float:
    """1 - edit distance / length of the longer text, in [0, 1]; 1 for two empty texts."""
    one, other = _letters(shown), _letters(asked)
    longest = max(len(one), len(other))
    return 1 - edit_distance(one, other) / longest if longest else 1.0


def word_accuracy(shown: str, *, asked: str) -> float:
    """Share of the asked words that are shown, in any order; a word that is asked for twice has to be shown twice."""
    wanted, found = Counter(_words(asked)), Counter(_words(shown))
    if not wanted:
        raise ValueError(f"the asked text {asked!r} has no word")
    return (wanted & found).total() / wanted.total()


def edit_distance(one: str, other: str) -> int:
    """Fewest insertions, deletions and replacements of a character that turn one text into the other (Levenshtein)."""
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, start=1):
        corner, row[0] = row[0], i
        for j, wanted in enumerate(other, start=1):
            # `corner` is the distance without the last letter of both texts.
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (letter != wanted))
    return row[-1]


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _letters(text: str) -> str:
    return "".join(_plain(text).split())


def _words(text: str) -> list[str]:
    words = (word.strip(PUNCTUATION) for word in _plain(text).split())
    return [word for word in words if word]
