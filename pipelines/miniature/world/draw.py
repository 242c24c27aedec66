"""Scenes of the miniature world and their drawing: 24x24 RGB, 3x3 cells of 8 pixels, one shape a cell at most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.miniature.world.grammar import COLOURS, SHAPES, Expectation

SIZE = 24  # pixels a side
CELL = 8  # pixels a side of a cell
GRID = SIZE // CELL

PALETTE = np.array(
    [(225, 40, 40), (40, 185, 60), (45, 70, 230), (230, 215, 50), (205, 55, 215), (45, 205, 220)], dtype=np.float32
)  # one row a name in COLOURS
BACKGROUND = (116, 140)  # grey level, uniform
RADIUS = (2.95, 3.45)  # pixels, uniform
JITTER = 0.3  # pixels, uniform in +-

_AXIS = np.arange(CELL, dtype=np.float32) - (CELL - 1) / 2


@dataclass(frozen=True)
class Thing:
    """One shape in one cell; centre offsets and radius in pixels."""

    shape: str
    colour: str
    row: int
    column: int
    radius: float
    right: float
    down: float


@dataclass(frozen=True)
class Scene:
    """All that determines a picture."""

    things: tuple[Thing, ...]
    background: float


def sample_scene(expectation: Expectation, *, generator: np.random.Generator) -> Scene:
    """A scene that fulfils the expectation exactly; what the expectation leaves free is uniform."""
    cells = _cells(expectation, generator=generator)
    uniform = generator.random(1 + 4 * expectation.total).tolist()
    low, high = BACKGROUND
    background = low + (high - low) * uniform[0]
    things: list[Thing] = []
    for asked in expectation.objects:
        for _ in range(asked.count):
            tint, size, right, down = uniform[1 + 4 * len(things) : 5 + 4 * len(things)]
            row, column = divmod(cells[len(things)], GRID)
            colour = asked.colour or COLOURS[int(tint * len(COLOURS))]
            radius = RADIUS[0] + (RADIUS[1] - RADIUS[0]) * size
            offsets = JITTER * (2 * right - 1), JITTER * (2 * down - 1)
            things.append(Thing(asked.shape, colour, row, column, radius, *offsets))
    return Scene(tuple(things), background)


def draw(scenes: Sequence[Scene]) -> np.ndarray:
    """Pictures uint8[n, 24, 24, 3], anti-aliased."""
    pictures = np.empty((len(scenes), SIZE, SIZE, 3), dtype=np.float32)
    pictures[:] = np.array([scene.background for scene in scenes], dtype=np.float32)[:, None, None, None]
    things = [(n, thing) for n, scene in enumerate(scenes) for thing in scene.things]
    if things:
        numbers = np.array(
            [(n, SHAPES.index(t.shape), COLOURS.index(t.colour), t.row, t.column) for n, t in things], dtype=np.int64
        )
        sizes = np.array([(t.radius, t.right, t.down) for _, t in things], dtype=np.float32)
        n, shape, colour, row, column = numbers.T
        cover = coverage(shape, radius=sizes[:, 0], right=sizes[:, 1], down=sizes[:, 2])[..., None]
        cells = pictures.reshape(len(scenes), GRID, CELL, GRID, CELL, 3).transpose(0, 1, 3, 2, 4, 5)
        cells[n, row, column] = cells[n, row, column] * (1 - cover) + PALETTE[colour][:, None, None] * cover
    return np.rint(pictures).astype(np.uint8)


def coverage(shape: np.ndarray, *, radius: np.ndarray, right: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Share of each cell pixel that a shape covers, float32[n, 8, 8] in [0, 1]; `shape` indexes SHAPES."""
    x = np.broadcast_to(_AXIS[None, None, :] - right[:, None, None], (len(shape), CELL, CELL))
    y = np.broadcast_to(_AXIS[None, :, None] - down[:, None, None], (len(shape), CELL, CELL))
    r = radius[:, None, None]
    distance = np.empty((len(shape), CELL, CELL), dtype=np.float32)
    for index, signed in enumerate((_circle, _square, _triangle, _cross)):
        of = shape == index
        if of.any():
            distance[of] = signed(x[of], y[of], r[of])
    return np.clip(0.5 - distance, 0, 1)


def _circle(x: np.ndarray, y: np.ndarray, r: np.ndarray) -> np.ndarray:
    return np.hypot(x, y) - r


def _square(x: np.ndarray, y: np.ndarray, r: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(x), np.abs(y)) - 0.9 * r


def _triangle(x: np.ndarray, y: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Upright: base below, apex above, as wide as it is high."""
    return np.maximum(y - 0.9 * r, (2 * np.abs(x) - y - 0.9 * r) / np.sqrt(5))


def _cross(x: np.ndarray, y: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Two bars, a third as thick as they are long."""
    wide = np.maximum(np.abs(x) - r, np.abs(y) - 0.36 * r)
    return np.minimum(wide, np.maximum(np.abs(y) - r, np.abs(x) - 0.36 * r))


def _cells(expectation: Expectation, *, generator: np.random.Generator) -> list[int]:
    """Distinct cells (row * 3 + column) for the objects in order, uniform among those that keep the relation."""
    if expectation.relation is None:
        return generator.permutation(GRID * GRID)[: expectation.total].tolist()
    pairs = _RELATED[expectation.relation]
    return list(pairs[int(generator.integers(len(pairs)))])


_COORDINATES = {cell: divmod(cell, GRID) for cell in range(GRID * GRID)}
_HOLDS = {
    "left": lambda a, b: a[1] < b[1],
    "right": lambda a, b: a[1] > b[1],
    "above": lambda a, b: a[0] < b[0],
    "below": lambda a, b: a[0] > b[0],
}
_RELATED = {
    relation: tuple((a, b) for a in _COORDINATES for b in _COORDINATES if holds(_COORDINATES[a], _COORDINATES[b]))
    for relation, holds in _HOLDS.items()
}
