"""Training pictures of jurors: scenes that fit a caption fully, partly or not at all, drawn as weak generators draw.

A weak generator leaves objects faint, between two shapes or two colours, cut off, blurred, doubled as ghosts, on a
stained background. Each picture comes with how well it fits its caption, known from the scene it was drawn from and
never from looking at the pixels, so that jurors stay independent of the exact checker that evaluates with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipelines.miniature.world.draw import BACKGROUND, CELL, GRID, JITTER, PALETTE, RADIUS, SIZE, coverage, sample_scene
from pipelines.miniature.world.grammar import COLOURS, SHAPES, Asked, Caption, Expectation

CELLS = GRID * GRID


@dataclass(frozen=True)
class Blot:
    """What one cell shows; indices into SHAPES and COLOURS, shares in [0, 1]."""

    cell: int
    shape: int
    colour: int
    strength: float = 1.0  # opacity
    other_shape: int = 0
    other_colour: int = 0
    shape_mix: float = 0.0  # share of the other shape
    colour_mix: float = 0.0  # share of the other colour
    cut: int = -1  # side that is missing: left, right, top, bottom; -1: none

    @property
    def presence(self) -> float:
        """How far a person would say that something is there, in [0, 1]."""
        return _ramp(self.strength, low=0.2, high=0.6)

    def shape_share(self, shape: int) -> float:
        """How far it is that shape, in [0, 1]."""
        share = (1 - self.shape_mix) * (self.shape == shape) + self.shape_mix * (self.other_shape == shape)
        return _ramp(share, low=0.25, high=0.75) * (0.6 if self.cut >= 0 else 1.0)

    def colour_share(self, colour: int) -> float:
        """How far it is that colour, in [0, 1]."""
        share = (1 - self.colour_mix) * (self.colour == colour) + self.colour_mix * (self.other_colour == colour)
        return _ramp(share, low=0.25, high=0.75)


@dataclass(frozen=True)
class Sketch:
    """All that determines a training picture but its noise."""

    blots: tuple[Blot, ...]
    blur: float = 0.0  # share of a 3x3 mean
    grain: float = 0.0  # standard deviation of white noise, grey levels
    stain: float = 0.0  # standard deviation of a colour offset a cell, grey levels


def fit(sketch: Sketch, expectation: Expectation) -> float:
    """How well a sketch shows what is asked, in [0, 1]: objects, attributes, relation; less for what is too much."""
    left = list(sketch.blots)
    credit, best = 0.0, []
    for asked in expectation.objects:
        ranked = sorted(left, key=lambda blot: -_credit(blot, asked))[: asked.count]
        credit += sum(_credit(blot, asked) for blot in ranked)
        best.append(ranked[0] if ranked else None)
        left = [blot for blot in left if blot not in ranked]
    score = credit / expectation.total
    if expectation.relation is not None:
        score *= 0.4 + 0.6 * _holds(best[0], best[1], relation=expectation.relation)
    return score / (1 + 0.5 * sum(blot.presence for blot in left))


def sketch_for(caption: Caption, *, other: Caption, generator: np.random.Generator) -> Sketch:
    """A sketch that fits `caption`, or nearly fits it, or was meant for `other`; clean or degraded."""
    kind = generator.random()
    source = other if kind < 0.15 else caption
    blots = _clean(source.expectation, generator=generator)
    if kind >= 0.5:
        for _ in range(1 + (generator.random() < 0.3)):
            blots = _edit(blots, task=caption.task, generator=generator)
    severity = 0.0 if generator.random() < 0.3 else float(generator.random())
    return _degrade(blots, severity=severity, generator=generator)


def fitting_sketch(caption: Caption, *, generator: np.random.Generator) -> Sketch:
    """A sketch that fits, a little degraded half of the time."""
    severity = 0.0 if generator.random() < 0.5 else 0.5 * float(generator.random())
    return _degrade(_clean(caption.expectation, generator=generator), severity=severity, generator=generator)


def paint(sketches: Sequence[Sketch], *, generator: np.random.Generator) -> np.ndarray:
    """Pictures uint8[n, 24, 24, 3]."""
    count = len(sketches)
    level = generator.uniform(*BACKGROUND, size=(count, 1, 1, 1, 1))
    stain = np.array([s.stain for s in sketches])[:, None, None, None, None]
    pictures = level + stain * generator.standard_normal((count, CELLS, 1, 1, 3))
    pictures = np.broadcast_to(pictures, (count, CELLS, CELL, CELL, 3)).astype(np.float32)
    owners = np.array([n for n, s in enumerate(sketches) for _ in s.blots], dtype=np.int64)
    blots = [blot for s in sketches for blot in s.blots]
    if blots:
        cells = np.array([blot.cell for blot in blots])
        alpha, colour = _cover(blots, generator=generator), _colour(blots)
        np.add.at(pictures, (owners, cells), alpha * (colour - pictures[owners, cells]))
    whole = pictures.reshape(count, GRID, GRID, CELL, CELL, 3).transpose(0, 1, 3, 2, 4, 5).reshape(count, SIZE, SIZE, 3)
    blur = np.array([s.blur for s in sketches], dtype=np.float32)[:, None, None, None]
    whole = (1 - blur) * whole + blur * _mean3(whole)
    grain = np.array([s.grain for s in sketches])[:, None, None, None]
    whole = whole + grain * generator.standard_normal(whole.shape)
    return np.clip(np.rint(whole), 0, 255).astype(np.uint8)


def contents(sketches: Sequence[Sketch]) -> np.ndarray:
    """What each cell shows, float32[n, 9, 11]: presence x (4 shapes, 6 colours), then presence."""
    table = np.zeros((len(sketches), CELLS, len(SHAPES) + len(COLOURS) + 1), dtype=np.float32)
    for n, sketch in enumerate(sketches):
        for blot in sketch.blots:
            row, presence = table[n, blot.cell], blot.presence
            row[blot.shape] += presence * (1 - blot.shape_mix)
            row[blot.other_shape] += presence * blot.shape_mix
            row[len(SHAPES) + blot.colour] += presence * (1 - blot.colour_mix)
            row[len(SHAPES) + blot.other_colour] += presence * blot.colour_mix
            row[-1] = presence
    return table


def _ramp(value: float, *, low: float, high: float) -> float:
    return min(max((value - low) / (high - low), 0.0), 1.0)


def _credit(blot: Blot, asked: Asked) -> float:
    colour = 1.0 if asked.colour is None else blot.colour_share(COLOURS.index(asked.colour))
    return blot.presence * blot.shape_share(SHAPES.index(asked.shape)) * (0.4 + 0.6 * colour)


def _holds(first: Blot | None, second: Blot | None, *, relation: str) -> bool:
    if first is None or second is None:
        return False
    (row, column), (other_row, other_column) = divmod(first.cell, GRID), divmod(second.cell, GRID)
    return {
        "left": column < other_column,
        "right": column > other_column,
        "above": row < other_row,
        "below": row > other_row,
    }[relation]


def _clean(expectation: Expectation, *, generator: np.random.Generator) -> list[Blot]:
    things = sample_scene(expectation, generator=generator).things
    return [Blot(t.row * GRID + t.column, SHAPES.index(t.shape), COLOURS.index(t.colour)) for t in things]


_EDITS = {  # what weak generators get wrong, by task: weights of drop, add, reshape, recolour, exchange, move
    "single": (1, 3, 3, 0.3, 0, 0.3),
    "two": (3, 2, 4, 0.5, 0, 0.3),
    "counting": (5, 5, 2, 0.3, 0, 0.3),
    "colours": (0.7, 2, 2, 5, 0, 0.3),
    "position": (1.5, 1, 2, 0.2, 4, 4),
    "attribution": (1.5, 1, 2, 4, 4, 0.3),
}


def _edit(blots: list[Blot], *, task: str, generator: np.random.Generator) -> list[Blot]:
    weights = np.array(_EDITS[task])
    edit = int(np.searchsorted(np.cumsum(weights) / weights.sum(), generator.random()))
    place = int(generator.integers(len(blots))) if blots else -1
    if edit == 1 or place < 0:
        return _add(blots, place=place, generator=generator)
    blot = blots[place]
    if edit == 0:
        changed = []
    elif edit == 2:
        changed = [replace(blot, shape=int(generator.integers(len(SHAPES))))]
    elif edit == 3:
        changed = [replace(blot, colour=int(generator.integers(len(COLOURS))))]
    elif edit == 4 and len(blots) > 1:
        return _exchange(blots, place=place, generator=generator)
    else:
        changed = [replace(blot, cell=cell) for cell in _free(blots, generator=generator)[:1]]
    return blots[:place] + changed + blots[place + 1 :]


def _add(blots: list[Blot], *, place: int, generator: np.random.Generator) -> list[Blot]:
    """One object more, of a shape that is there already half of the time."""
    repeat = place >= 0 and generator.random() < 0.5
    shape = blots[place].shape if repeat else int(generator.integers(len(SHAPES)))
    free = _free(blots, generator=generator)[:1]
    return blots + [Blot(cell, shape, int(generator.integers(len(COLOURS)))) for cell in free]


def _exchange(blots: list[Blot], *, place: int, generator: np.random.Generator) -> list[Blot]:
    """Two objects exchange their cells or their colours."""
    other = (place + 1 + int(generator.integers(len(blots) - 1))) % len(blots)
    first, second = blots[place], blots[other]
    if generator.random() < 0.5:
        first, second = replace(first, cell=second.cell), replace(second, cell=first.cell)
    else:
        first, second = replace(first, colour=second.colour), replace(second, colour=first.colour)
    return [first if n == place else second if n == other else blot for n, blot in enumerate(blots)]


def _free(blots: list[Blot], *, generator: np.random.Generator) -> list[int]:
    taken = {blot.cell for blot in blots}
    return [cell for cell in generator.permutation(CELLS).tolist() if cell not in taken]


def _degrade(blots: list[Blot], *, severity: float, generator: np.random.Generator) -> Sketch:
    """Fainter, mixed and cut objects, ghosts, blur, grain and stains; severity in [0, 1]."""
    if severity == 0:
        return Sketch(tuple(blots), grain=2.0 * float(generator.random()))
    worse = []
    for blot in blots:
        draws = generator.random(9)
        shape, colour = int(draws[0] * len(SHAPES)), int(draws[1] * len(COLOURS))
        worse.append(
            replace(
                blot,
                strength=1 - float(draws[2] * severity) if draws[3] < 0.6 else 1.0,
                other_shape=shape,
                other_colour=colour,
                shape_mix=0.6 * float(draws[4]) * (draws[5] < 0.7 * severity),
                colour_mix=0.6 * float(draws[6]) * (draws[7] < 0.5 * severity),
                cut=int(draws[4] * 4) if draws[8] < 0.15 * severity else -1,
            )
        )
    ghosts = generator.random(CELLS) < 0.15 * severity
    for cell in _free(worse, generator=generator):
        if ghosts[cell]:
            draws = generator.random(5)
            shapes, colours = (draws[:2] * len(SHAPES)).astype(int), int(draws[2] * len(COLOURS))
            strength, mix = 0.7 * float(draws[3]), 0.5 * float(draws[4])
            worse.append(Blot(cell, int(shapes[0]), colours, strength, other_shape=int(shapes[1]), shape_mix=mix))
    blur, grain, stain = (generator.random(3) * severity).tolist()
    return Sketch(tuple(worse), blur=0.8 * blur, grain=10 * grain, stain=7 * stain)


def _cover(blots: list[Blot], *, generator: np.random.Generator) -> np.ndarray:
    """Opacity float32[blots, 8, 8, 1]."""
    count = len(blots)
    placing = {
        "radius": generator.uniform(*RADIUS, size=count).astype(np.float32),
        "right": generator.uniform(-JITTER, JITTER, size=count).astype(np.float32),
        "down": generator.uniform(-JITTER, JITTER, size=count).astype(np.float32),
    }
    mix = np.array([blot.shape_mix for blot in blots], dtype=np.float32)[:, None, None]
    alpha = (1 - mix) * coverage(np.array([blot.shape for blot in blots]), **placing)
    alpha += mix * coverage(np.array([blot.other_shape for blot in blots]), **placing)
    alpha *= np.array([blot.strength for blot in blots], dtype=np.float32)[:, None, None]
    half = CELL // 2
    for n, blot in enumerate(blots):
        if blot.cut >= 0:
            side = (slice(None), slice(0, half)), (slice(None), slice(half, None)), (slice(0, half),), (slice(half, None),)
            alpha[(n, *side[blot.cut])] = 0
    return alpha[..., None]


def _colour(blots: list[Blot]) -> np.ndarray:
    """Colours float32[blots, 1, 1, 3]."""
    mix = np.array([blot.colour_mix for blot in blots], dtype=np.float32)[:, None]
    first = PALETTE[[blot.colour for blot in blots]]
    return ((1 - mix) * first + mix * PALETTE[[blot.other_colour for blot in blots]])[:, None, None, :]


def _mean3(pictures: np.ndarray) -> np.ndarray:
    """Mean over 3x3 pixels, edges repeated."""
    wide = np.pad(pictures, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    rows = wide[:, :-2] + wide[:, 1:-1] + wide[:, 2:]
    return (rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]) / 9
