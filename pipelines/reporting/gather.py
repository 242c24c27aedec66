"""From a run's artifacts to ReportData: counts instead of long tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from infra.dag.plan import flatten
from infra.dag.stage import Lineage, Stage, topological
from pipelines.reporting.data import Duel, LabelCounts, Node

LONGEST_SETTING = 400


def nodes(report: Stage, lineage: Sequence[Lineage]) -> list[Node]:
    """Every stage of the DAG, the report last; an ancestor this run did not look at has no state."""
    known = {ancestor.key: ancestor for ancestor in lineage}
    return [_node(stage, known.get(stage.key), last=stage.key == report.key) for stage in topological(report)]


def _node(stage: Stage, found: Lineage | None, *, last: bool) -> Node:
    return Node(
        node=stage.node,
        stage=stage.name,
        key=stage.key,
        state=found.state if found else "this page" if last else "not in this run",
        seconds=found.seconds if found else None,
        rows=found.rows if found else None,
        error_rows=found.error_rows if found else 0,
        reused_rows=found.reused_rows if found else 0,
        parents=tuple(parent.node for parent in stage.parents.values()),
        settings=settings(stage),
    )


def settings(stage: Stage) -> dict[str, str]:
    """Options by dotted path, without parents (the DAG shows them)."""
    leaves = {k: v for k, v in flatten(stage.description).items() if k != "stage" and not _is_parent(v)}
    return {name: _short(value) for name, value in leaves.items()}


def _is_parent(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"stage", "key"}


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= LONGEST_SETTING else f"{text[:LONGEST_SETTING]}…"


def labels(preferences: pa.Table) -> LabelCounts:
    """Counts over rows of Preference."""
    if not preferences.num_rows:
        return LabelCounts()
    return LabelCounts(
        pairs=preferences.num_rows,
        ties=pc.sum(pc.equal(preferences["choice"], "tie")).as_py(),
        unanimous=pc.sum(pc.greater_equal(preferences["agreement"], 1.0)).as_py(),
        agreement=pc.mean(preferences["agreement"]).as_py(),
        unparsable_votes=pc.sum(preferences["votes_unparsable"]).as_py(),
    )


def duels(matches: pa.Table) -> list[Duel]:
    """Games by two generators, over rows of Match."""
    counted = matches.group_by(["generator_a", "generator_b", "choice"]).aggregate([([], "count_all")])
    tally: dict[tuple[str, str], dict[str, int]] = {}
    for row in counted.to_pylist():
        one, other = row["generator_a"], row["generator_b"]
        left, right = min(one, other), max(one, other)
        winner = {"a": one, "b": other}.get(row["choice"])
        side = "tie" if winner is None else "left" if winner == left else "right"
        sides = tally.setdefault((left, right), {"left": 0, "right": 0, "tie": 0})
        sides[side] += row["count_all"]
    return [Duel(*key, s["left"], s["right"], s["tie"]) for key, s in sorted(tally.items())]
