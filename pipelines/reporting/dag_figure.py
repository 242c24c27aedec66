"""The DAG as a drawing: stages from top to bottom, an arrow to each child, those that skip stages in lanes at the left."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from markupsafe import Markup

from infra.dag.stage import Stage
from pipelines.reporting.data import Node
from pipelines.reporting.svg import element, figure, group, line, number, shorten, text
from pipelines.reporting.text import count, plural, seconds

ROW, BOX, LANE = 56.0, 38.0, 15.0
WIDTH, NAME = 760.0, 170.0


def dag(nodes: Sequence[Node]) -> Markup:
    """Nodes in topological order, parents first."""
    place = {node.node: k for k, node in enumerate(nodes)}
    edges = [(place[p], place[n.node]) for n in nodes for p in dict.fromkeys(n.parents) if p in place]
    skipping = sorted((e for e in edges if e[1] - e[0] > 1), key=lambda e: (e[1] - e[0], e))
    lanes = assign_lanes(skipping)
    left = 24.0 + LANE * (max(lanes.values(), default=0) + 1)
    parts = [group([_skip(edge, lane, left) for edge, lane in lanes.items()], class_="edges")]
    parts += [_straight(edge, left) for edge in edges if edge[1] - edge[0] == 1]
    slowest = max((node.seconds or 0.0 for node in nodes), default=0.0)
    parts += [_row(node, k, left, slowest) for k, node in enumerate(nodes)]
    return figure(WIDTH, ROW * max(len(nodes), 1) + 8, parts, title=_described(nodes), kind="chart wide")


def assign_lanes(edges: Sequence[tuple[int, int]]) -> dict[tuple[int, int], int]:
    """A lane for each edge so that edges in one lane do not overlap, unless they leave the same stage."""
    lanes: dict[tuple[int, int], int] = {}
    for edge in edges:
        taken = {lane for other, lane in lanes.items() if edge[0] <= other[1] and other[0] <= edge[1]}
        lanes[edge] = next(k for k in range(len(edges)) if k not in taken)
    return lanes


def _middle(place: int) -> float:
    return 6 + ROW * place + BOX / 2


def _head(x: float, y: float, dx: float, dy: float) -> Markup:
    """An arrow's head whose tip is at (x, y), coming from the left (dx = 1) or from above (dy = 1)."""
    points = [(x, y), (x - 7 * dx - 4 * dy, y - 7 * dy - 4 * dx), (x - 7 * dx + 4 * dy, y - 7 * dy + 4 * dx)]
    return element("polygon", points=" ".join(f"{number(a)},{number(b)}" for a, b in points), class_="head")


def _straight(edge: tuple[int, int], left: float) -> Markup:
    x = left + 30
    top, bottom = _middle(edge[0]) + BOX / 2, _middle(edge[1]) - BOX / 2
    return group([line(x, top, x, bottom - 4, "edge"), _head(x, bottom, 0, 1)])


def _skip(edge: tuple[int, int], lane: int, left: float) -> Markup:
    x = left - 14 - LANE * lane
    top, bottom = _middle(edge[0]) + 8, _middle(edge[1]) - 8
    n = number
    route = f"M{n(left)} {n(top)} H{n(x + 6)} Q{n(x)} {n(top)} {n(x)} {n(top + 6)} V{n(bottom - 6)}"
    route += f" Q{n(x)} {n(bottom)} {n(x + 6)} {n(bottom)} H{n(left - 4)}"
    return group([element("path", d=route, class_="edge"), _head(left, bottom, 1, 0)])


def _row(node: Node, place: int, left: float, slowest: float) -> Markup:
    y = _middle(place)
    state = {"hit": "hit", "computed": "computed"}.get(node.state, "other")
    box = element("rect", x=left, y=y - BOX / 2, width=NAME, height=BOX, rx=6.0, class_=f"node {state}")
    after = left + NAME + 16
    rows = plural(node.rows, "row") if node.rows is not None else ""
    rows += f", {count(node.reused_rows)} taken over" if node.reused_rows else ""
    parts = [box, text(left + 12, y + 5, shorten(node.node, 20), kind="name")]
    parts += [text(after, y - 2, node.state, kind="label"), text(after, y + 14, rows)]
    if node.seconds is not None:
        length = 120 * node.seconds / slowest if slowest else 0.0
        parts.append(element("rect", x=after + 190, y=y - 6, width=max(length, 1.0), height=10.0, class_=f"fill {state}"))
        parts.append(text(after + 198 + max(length, 1.0), y + 4, seconds(node.seconds)))
    if node.error_rows:
        parts.append(text(after + 190, y + 19, f"{count(node.error_rows)} quarantined", kind="tick bad"))
    return group(parts)


def _described(nodes: Sequence[Node]) -> str:
    """Alternative text."""
    told = [f"{n.node} ({n.state}) from {', '.join(n.parents) or 'nothing'}" for n in nodes]
    return f"The DAG: {'; '.join(told) or 'no stages'}"


STYLE = """
svg { background: #ffffff; font-family: system-ui, sans-serif; } text { fill: #24292f; font-size: 12.5px; }
.name { font-size: 13.5px; font-weight: 600; } .node { fill: #e7f0fb; stroke: #24292f; stroke-width: 1.2; }
.edge { fill: none; stroke: #57606a; stroke-width: 1.3; } .head { fill: #57606a; }
"""


def drawing(stages: Sequence[Stage]) -> str:
    """The DAG of a recipe as an SVG file of its own: each stage with the first sentence of what it is."""
    nodes = [
        Node(
            stage.node, stage.name, stage.key, said(stage), None, None, 0, 0, tuple(p.node for p in stage.parents.values())
        )
        for stage in stages
    ]
    markup = str(dag(nodes)).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return markup.replace("</title>", f"</title><style>{STYLE}</style>", 1) + "\n"


def said(stage: Stage) -> str:
    """The first sentence of a stage's docstring."""
    return (inspect.getdoc(type(stage)) or "").split("\n\n")[0].replace("\n", " ").split(". ")[0].rstrip(".")
