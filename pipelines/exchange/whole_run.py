"""A run in one folder, for people without Salon: its data set, everything that it trained, its report, and a card.

README.md    what is where, and what the evaluation measured
pairs/       the judged pairs as a data set with a card, in Salon's own format
{node}/      the weights of every node that left some (`tune`, `reward`, `reinforce`), with their cards, and the `report`
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from infra.config import ConfigError
from infra.store.artifacts import Store
from infra.store.runs import artifact_of, nodes_of
from pipelines.exchange.card import escaped
from pipelines.exchange.judged import Judged, judged_in, require_new, write_judged
from pipelines.schemas.evaluation import EvaluationSummary

PAIRS = "pairs"
REPORT = "report"
COLUMNS = ("measure", "dimension", "statistic", "arm", "value", "difference", "low", "high", "n")


def write_run(store: Store, run: Mapping[str, Any], out: Path) -> list[str]:
    """Writes the folder under its final name or not at all; the lines of its list of contents.

    Raises ConfigError for a run without judged pairs, or whose artifacts are gone.
    """
    found = judged_in(store, run, None)
    if found is None:
        raise ConfigError(f"run {run['name']} in {store.root} has no labels; give the run of a recipe that judges pairs")
    require_new(out)
    temporary = out.with_name(f".{out.name}.tmp-{os.getpid()}")
    temporary.mkdir(parents=True)
    try:
        write_judged(found, temporary / PAIRS, format="salon", renamed={})
        contents = [f"`{PAIRS}/`: {_pairs(found)}", *_weights(store, run, temporary)]
        (temporary / "README.md").write_text(_card(store, run, contents), encoding="utf-8")
        if out.is_dir():
            out.rmdir()
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return contents


def _pairs(found: Judged) -> str:
    kind = "clips" if found.medium == "video" else "pictures"
    return f"{found.written} judged pairs of {kind}, which `datasets.load_dataset` opens"


def _weights(store: Store, run: Mapping[str, Any], out: Path) -> Iterator[str]:
    """Copies what every node of the run left beside its rows, hashes checked."""
    for outcome in run["stages"]:
        artifact = artifact_of(store, outcome)
        if not artifact.record.weights:
            continue
        name = outcome["node"].replace("[", "-").replace("]", "")
        shutil.copytree(artifact.weights(), out / name)
        what = "report.html, which needs no connection" if outcome["stage"] == REPORT else "what this stage trained"
        card = (out / name / "README.md").is_file()
        yield f"`{name}/`: {what}{', with its card' if card else ''}"


def _card(store: Store, run: Mapping[str, Any], contents: list[str]) -> str:
    lines = [f"# {escaped(run['name'])}", f"A run of Salon's recipe {escaped(run['recipe'])}, started {run['started']}."]
    lines += ["## Contents", "\n".join(f"- {line}" for line in contents), "## Evaluation"]
    rows = [
        row
        for outcome in nodes_of(run, ("evaluate",)).values()
        for row in artifact_of(store, outcome).rows(EvaluationSummary)
        if row.task == "overall"
    ]
    if rows:
        table = [f"| {' | '.join(COLUMNS)} | taught the policy |", "|---" * (len(COLUMNS) + 1) + "|"]
        cells = [[*(_cell(getattr(row, name)) for name in COLUMNS), "yes" if row.trained_on else "no"] for row in rows]
        table += [f"| {' | '.join(line)} |" for line in cells]
        lines += ["On held-out prompts; low and high are the 95 % interval of the difference.", "\n".join(table)]
    else:
        lines += ["None was measured."]
    return "\n\n".join(lines) + "\n"


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else escaped(str(value))
