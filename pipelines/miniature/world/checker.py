"""The exact checker: what a picture of the miniature world shows, from its pixels alone.

Colour segmentation against the border's grey, 4-connected components of one colour, the nearest of 60 jittered
templates a shape. No model and no label of training enters it; it is what the evaluation believes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from pipelines.miniature.world.draw import CELL, JITTER, PALETTE, RADIUS, SIZE, coverage
from pipelines.miniature.world.grammar import COLOURS, SHAPES, Expectation

FOREGROUND = 0.5  # share of a full colour from which a pixel belongs to an object
SMALLEST = 8  # pixels of an object; less is dirt
LIKENESS = 0.75  # Tanimoto overlap with the best template from which a component is a shape
CLEARANCE = 4.0  # pixels between two centres that make a relation hold
TEMPLATES = 60  # a shape

_WINDOW = CELL + 3  # pixels a side of the window that is compared, centred on the component
_HALF = _WINDOW // 2


@dataclass(frozen=True)
class Found:
    """One component: shape None when no template is near; centre in pixels; overlap and purity in [0, 1]."""

    shape: str | None
    colour: str
    x: float
    y: float
    overlap: float
    purity: float


@dataclass(frozen=True)
class Check:
    """strict: exactly what was asked; partial: credit in [0, 1]; quality: clean drawing in [0, 1], whatever was asked."""

    strict: bool
    partial: float
    quality: float


def check(picture: np.ndarray, expectation: Expectation) -> Check:
    """Judges uint8[24, 24, 3] against what was asked."""
    found, clean = detect(picture)
    kept = _assign(found, expectation)
    related = expectation.relation is None or _holds(found, expectation)
    strict = len(found) == expectation.total and all(credit == 1.0 for credit in kept) and related
    credits = [*kept, *([] if expectation.relation is None else [float(related)])]
    extras = max(0, len(found) - expectation.total)
    drawn = float(np.mean([each.overlap * each.purity for each in found])) if found else 0.0
    return Check(strict, sum(credits) / len(credits) / (1 + 0.5 * extras), drawn * clean)


def detect(picture: np.ndarray) -> tuple[list[Found], float]:
    """The components of a picture, and the share of its background that is clean."""
    if picture.shape != (SIZE, SIZE, 3) or picture.dtype != np.uint8:
        raise ValueError(f"checker needs uint8[{SIZE}, {SIZE}, 3], got {picture.dtype}{list(picture.shape)}")
    pixels = picture.astype(np.float32)
    grey = np.median(pixels.reshape(-1, 3), axis=0).mean()
    away, tint = pixels - grey, PALETTE - grey
    lengths = np.linalg.norm(tint, axis=1)
    along = away @ (tint / lengths[:, None] ** 2).T  # share of each colour along its own direction
    colour = (along * lengths).argmax(axis=-1)
    strength = np.take_along_axis(along, colour[..., None], axis=-1)[..., 0].clip(0, 1)
    labels = _components(strength > FOREGROUND, colour)
    numbers, sizes = np.unique(labels, return_counts=True)
    found = []
    for number, size in zip(numbers.tolist(), sizes.tolist(), strict=True):
        if number >= 0 and size >= SMALLEST:
            found.append(_recognise(labels == number, strength, away, tint))
    return found, _cleanness(labels, numbers[sizes >= SMALLEST], away)


def _components(mask: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """A number for each 4-connected component of one colour, -1 for background: the largest index wins, until rest."""
    labels = np.full((SIZE + 2, SIZE + 2), -1, dtype=np.int32)
    inner = labels[1:-1, 1:-1]
    inner[mask] = np.flatnonzero(mask)
    down = mask[1:] & mask[:-1] & (colour[1:] == colour[:-1])
    right = mask[:, 1:] & mask[:, :-1] & (colour[:, 1:] == colour[:, :-1])
    while True:
        before = inner.copy()
        upper, lower = inner[:-1], inner[1:]
        np.copyto(upper, np.maximum(upper, lower), where=down)
        np.copyto(lower, np.maximum(upper, lower), where=down)
        near, far = inner[:, :-1], inner[:, 1:]
        np.copyto(near, np.maximum(near, far), where=right)
        np.copyto(far, np.maximum(near, far), where=right)
        if np.array_equal(before, inner):
            return inner


def _recognise(member: np.ndarray, strength: np.ndarray, away: np.ndarray, tint: np.ndarray) -> Found:
    ys, xs = np.nonzero(member)
    x, y = float(xs.mean()), float(ys.mean())
    mean = away[member].mean(axis=0)
    distances = np.linalg.norm(mean - tint, axis=1)
    near = int(distances.argmin())
    purity = float(np.clip(1 - distances[near] / np.linalg.norm(tint[near]), 0, 1))
    window = _window(np.where(_grown(member), strength, 0), x, y)
    templates, squares = _templates()
    dots = templates @ window
    likeness = dots / (squares + window @ window - dots)
    best = int(likeness.argmax())
    shape = SHAPES[best // TEMPLATES] if likeness[best] >= LIKENESS else None
    return Found(shape, COLOURS[near], x, y, float(likeness[best]), purity)


def _grown(member: np.ndarray) -> np.ndarray:
    """The component and its 4-neighbours, which hold its anti-aliased edge."""
    grown = member.copy()
    grown[1:] |= member[:-1]
    grown[:-1] |= member[1:]
    grown[:, 1:] |= member[:, :-1]
    grown[:, :-1] |= member[:, 1:]
    return grown


def _window(cover: np.ndarray, x: float, y: float) -> np.ndarray:
    """The square around the rounded centre, flat."""
    padded = np.pad(cover, _HALF + 1)
    row, column = round(y) + 1, round(x) + 1
    return padded[row : row + _WINDOW, column : column + _WINDOW].ravel()


@cache
def _templates() -> tuple[np.ndarray, np.ndarray]:
    """float32[4 * 60, 121] coverages of jittered shapes, centred as components are, and their squared lengths."""
    uniform = np.random.default_rng(0).random((3, len(SHAPES) * TEMPLATES)).astype(np.float32)
    radius = RADIUS[0] + (RADIUS[1] - RADIUS[0]) * uniform[0]
    offset = JITTER * (2 * uniform[1:] - 1)
    shape = np.repeat(np.arange(len(SHAPES)), TEMPLATES)
    cells = coverage(shape, radius=radius, right=offset[0], down=offset[1])
    windows = []
    for cell in cells:
        ys, xs = np.nonzero(cell > FOREGROUND)
        windows.append(_window(cell, float(xs.mean()), float(ys.mean())))
    templates = np.stack(windows)
    return templates, (templates**2).sum(axis=1)


def _cleanness(labels: np.ndarray, kept: np.ndarray, away: np.ndarray) -> float:
    """Share of the pixels outside objects and their edges that are within a tenth of full colour of the grey."""
    outside = ~_grown(np.isin(labels, kept[kept >= 0]))
    return float((np.abs(away[outside]).max(axis=-1) < 13).mean()) if outside.any() else 0.0


def _assign(found: list[Found], expectation: Expectation) -> list[float]:
    """Credit of each asked object, every component used once: 1 right, 0.5 right shape in another colour, 0 missing."""
    left, credits = list(found), []
    wanted = [asked for asked in expectation.objects for _ in range(asked.count)]
    for asked in sorted(wanted, key=lambda each: each.colour is None):
        exact = [each for each in left if each.shape == asked.shape and asked.colour in (None, each.colour)]
        same = [each for each in left if each.shape == asked.shape]
        if exact or same:
            left.remove((exact or same)[0])
        credits.append(1.0 if exact else 0.5 if same else 0.0)
    return credits


def _holds(found: list[Found], expectation: Expectation) -> bool:
    """Whether some component of the first asked shape stands in the relation to one of the second."""
    first, second = ([e for e in found if e.shape == asked.shape] for asked in expectation.objects)
    return any(_apart(a, b, expectation.relation) >= CLEARANCE for a in first for b in second if a is not b)


def _apart(a: Found, b: Found, relation: str | None) -> float:
    """How far a is from b in the direction of the relation, in pixels."""
    return {"left": b.x - a.x, "right": a.x - b.x, "above": b.y - a.y, "below": a.y - b.y}[relation or ""]
