"""The stage `report` over parents whose rows are made by hand: it gathers, and writes one page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from infra.dag.stage import Lineage, Stage
from infra.store.tables import from_table, to_table
from pipelines.recipes.miniature import miniature
from pipelines.schemas.votes import Match
from pipelines.stages.report import FILE
from support.report_rows import evaluation, ratings, summaries, tune_steps


@dataclass
class Parents:
    """The part of a context that the stage uses."""

    weights_out: Path
    tables: dict[tuple[str, str | None], Sequence[Any]]
    ancestors: list[Lineage] = field(default_factory=list)

    def table(self, parent: Stage, columns: Sequence[str] | None = None, *, name: str | None = None) -> pa.Table:
        row = parent.row if name is None else parent.tables[name]
        table = to_table(self.tables.get((parent.name, name), ()), row)
        return table if columns is None else table.select(list(columns))

    def rows(self, parent: Stage, *, name: str | None = None) -> Iterator[Any]:
        return from_table(self.table(parent, name=name), parent.row if name is None else parent.tables[name])

    def lineage(self) -> list[Lineage]:
        return self.ancestors


def test_the_page_holds_what_the_parents_hold(tmp_path: Path) -> None:
    report = miniature().report
    tables: dict[tuple[str, str | None], Sequence[Any]] = {
        ("arena", None): ratings(),
        ("arena", "matches"): [Match(0, "p", "strong", "weak", "a")],
        ("tune", None): tune_steps(20),
        ("evaluate", None): [evaluation(k) for k in range(60)],
        ("evaluate", "summary"): summaries(),
    }
    gate = {"gate": {"passed": False, "reasons": ["held-out strict falls"]}}
    evaluated = Lineage("evaluate", "evaluate", report.evaluate.key, "computed", 1.0, 60, 0, 0, (), gate)
    context: Any = Parents(tmp_path, tables, [evaluated])
    (row,) = list(report.run(context))
    page = (tmp_path / FILE).read_text()
    assert row.path == FILE and row.bytes == (tmp_path / FILE).stat().st_size
    assert page.count("<img ") == 2 * 6 * report.gallery_per_task
    assert "The gate failed" in page and report.tune.key in page
