"""Draws docs/dag.svg: the stages of the recipe `miniature` and what passes between them."""

from __future__ import annotations

import sys
from pathlib import Path

STAGES = {  # name: (column, row, what comes out)
    "prompts": (0, 0, "captions of six tasks"),
    "render": (1, 0, "pictures of a roster"),
    "pair": (2, 0, "two pictures a question"),
    "judge": (3, 0, "votes of the jurors"),
    "label": (4, 0, "preferences, audit"),
    "encode": (1, 1, "latents, embeddings"),
    "examples": (3, 1, "who won, how sure"),
    "arena": (4, 2, "ratings, gaps"),
    "reward": (3, 2, "reward model"),
    "tune": (2, 2, "tuned generator"),
    "evaluate": (1, 2, "scores, intervals"),
    "report": (0, 2, "one HTML file"),
    "gate": (0, 1, "stops reward hacking"),
}
AHEAD = """prompts render, render pair, pair judge, judge label, label arena, label examples, encode examples,
examples reward, examples tune, tune evaluate, evaluate report, report gate"""
PICTURES = "render encode"
AROUND = {"reward evaluate": 16, "arena report": 34}  # how far below the boxes they run
WIDTH, HEIGHT, BOX, TALL, STEP, DOWN = 900, 326, 148, 56, 180, 104
INK, PAPER, FILL = "#24292f", "#ffffff", {0: "#e7f0fb", 1: "#fdf3e1", 2: "#eaf6ea"}


def corner(stage: str) -> tuple[int, int]:
    """Upper left corner of a stage's box."""
    column, row, _ = STAGES[stage]
    return 16 + STEP * column, 18 + DOWN * row


def box(stage: str) -> str:
    """A stage: its name, and what it leaves behind."""
    x, y = corner(stage)
    _, row, text = STAGES[stage]
    middle = x + BOX / 2
    return (
        f'<rect x="{x}" y="{y}" width="{BOX}" height="{TALL}" rx="8" fill="{FILL[row]}" stroke="{INK}"/>'
        f'<text x="{middle}" y="{y + 24}" font-weight="bold" font-size="15">{stage}</text>'
        f'<text x="{middle}" y="{y + 43}" font-size="12">{text}</text>'
    )


def arrow(edge: str, *, dashed: bool = False) -> str:
    """From one box to another: sideways within a row, straight up, else from the bottom of the upper to the lower's top."""
    one, other = edge.split()
    (x, y), (u, v) = corner(one), corner(other)
    shift = (x > u) - (x < u)
    if v == y:
        near, far = (x, u + BOX) if u < x else (x + BOX, u)
        start, end = (near, y + TALL / 2), (far, v + TALL / 2)
    elif v < y:
        start, end = (x + BOX / 2, y), (u + BOX / 2, v + TALL)
    else:
        start, end = (x + BOX / 2 - 24 * shift * (abs(u - x) // STEP), y + TALL), (u + BOX / 2 + 40 * shift, v)
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    return _path(f"M{start[0]:g} {start[1]:g} L{end[0]:g} {end[1]:g}", dash)


def around(edge: str, depth: int) -> str:
    """From one box to another of the lower row, below those between."""
    one, other = edge.split()
    (x, y), (u, _) = corner(one), corner(other)
    start, end, low = x + BOX / 2, u + BOX / 2, y + TALL + depth
    return _path(f"M{start:g} {y + TALL} V{low} H{end:g} V{y + TALL}", "")


def _path(route: str, dash: str) -> str:
    return f'<path d="{route}" fill="none" stroke="{INK}" stroke-width="1.4"{dash} marker-end="url(#tip)"/>'


def drawing() -> str:
    """The whole picture."""
    tip = (
        '<marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" orient="auto">'
        f'<path d="M0 1 L9 5 L0 9 z" fill="{INK}"/></marker>'
    )
    parts = [f"<defs>{tip}</defs>", f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{PAPER}"/>']
    parts += [arrow(edge) for edge in AHEAD.split(",")]
    parts += [arrow(edge, dashed=True) for edge in PICTURES.split(",")]
    parts += [around(edge, depth) for edge, depth in AROUND.items()]
    parts += [box(stage) for stage in STAGES]
    style = f'font-family="system-ui, sans-serif" text-anchor="middle" fill="{INK}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" {style}>'
    return "\n".join([head, "<title>The DAG of the recipe miniature</title>", *parts, "</svg>"]) + "\n"


def main() -> int:
    """Writes the picture beside this script."""
    Path(__file__).with_suffix(".svg").write_text(drawing())
    return 0


if __name__ == "__main__":
    sys.exit(main())
