"""ReportData in, one HTML file out: self-contained, under a content security policy that admits nothing from outside."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from pipelines.reporting import figures, findings, text
from pipelines.reporting.dag_figure import dag
from pipelines.reporting.data import GalleryEntry, GalleryPicture, ReportData
from pipelines.reporting.figures import Estimate, Series
from pipelines.reporting.pictures import Shown, embed
from pipelines.schemas.curves import Curve, by_metric, last_step
from pipelines.schemas.evaluation import EvaluationSummary

CHANCE = 0.5  # the accuracy of a coin
TOGETHER = {"winner_error": "loser_error"}
"""Metrics of a training that are drawn in one figure, the second in the second colour."""


@dataclass(frozen=True)
class Framed:
    """One picture of the gallery, ready to be embedded."""

    row: GalleryPicture
    shown: Shown


@dataclass(frozen=True)
class Frames:
    """One caption of the gallery by every arm."""

    entry: GalleryEntry
    pictures: Sequence[Framed]


def render_report(data: ReportData) -> str:
    """The page; the same data give the same bytes."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, finalize=_visible, trim_blocks=True, lstrip_blocks=True
    )
    formats = {name: getattr(text, name) for name in ("fixed", "signed", "percent", "count", "seconds", "plural")}
    environment.filters |= formats | {"measure": findings.words}
    arms = list(dict.fromkeys(s.arm for s in data.summary))
    style = _resource("style.css")
    page = environment.from_string(_resource("template.html.j2")).render(
        data=data,
        style=Markup(style),  # our own file
        style_hash=base64.b64encode(hashlib.sha256(f"\n{style}".encode()).digest()).decode(),
        headlines=findings.headlines(data),
        verdicts=findings.gate(data),
        weaknesses=findings.weaknesses(data),
        remarks=findings.remarks,
        limits=findings,
        drawn=_figures(data),
        duel=_duels(data),
        tune_steps=last_step(data.tune_curve),
        generators=[rating.generator for rating in ranked(data)],
        ranked=ranked(data),
        several_dimensions=len({juror.dimension for juror in data.jurors}) > 1,
        gallery=gallery(data.gallery.entries),
        overall=[(arm, [s for s in data.summary if s.arm == arm and s.task == findings.OVERALL]) for arm in arms],
        by_task=[(arm, [s for s in data.summary if s.arm == arm and s.task != findings.OVERALL]) for arm in arms],
    )
    return page.rstrip() + "\n"


def _resource(name: str) -> str:
    return files("pipelines.reporting").joinpath(name).read_text(encoding="utf-8")


def _visible(value: Any) -> Any:
    return text.printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def ranked(data: ReportData) -> list[Any]:
    """Ratings, strongest first."""
    return sorted(data.ratings, key=lambda r: (-r.score, r.generator))


def gallery(entries: Sequence[GalleryEntry]) -> list[tuple[str, list[Frames]]]:
    """The gallery's entries by task, in the order of the draw."""
    by_task: dict[str, list[Frames]] = {}
    for entry in entries:
        framed = [Framed(row, embed(row.image)) for row in entry.pictures]
        by_task.setdefault(entry.task, []).append(Frames(entry, framed))
    return sorted(by_task.items())


def _duels(data: ReportData) -> dict[tuple[str, str], tuple[float, int]]:
    """(winner's share, games) of row against column; a tie is half a win."""
    found = {}
    for duel in data.duels:
        games = duel.left_wins + duel.right_wins + duel.ties
        if games and duel.left != duel.right:
            share = (duel.left_wins + duel.ties / 2) / games
            found[duel.left, duel.right] = (share, games)
            found[duel.right, duel.left] = (1 - share, games)
    return found


def _figures(data: ReportData) -> dict[str, Any]:
    skill = [Estimate(r.generator, r.mu, r.mu - 2 * r.sigma, r.mu + 2 * r.sigma) for r in ranked(data)]
    strength = [Estimate(r.generator, r.bt_strength, r.bt_low, r.bt_high) for r in ranked(data)]
    accuracy = [Estimate(f"t = {r.t:g}", r.accuracy, r.low, r.high) for r in data.reward_accuracy]
    places = [r.t for r in data.reward_accuracy]
    return {
        "dag": dag(data.nodes),
        "skill": figures.forest(skill, title="Ratings: mu with two sigma either side", axis="mu, two sigma either side"),
        "strength": figures.forest(
            strength, title="Bradley-Terry log-strength with 95 % intervals", axis="Bradley-Terry log-strength, 95 %"
        ),
        "measures": [_measure_figures(data, arm) for arm in dict.fromkeys(s.arm for s in data.summary)],
        "gaps": figures.histogram(data.gaps, title="Posterior gaps of the pairs", axis="gap of the pair, rating's scale"),
        "accuracy": figures.by_noise(accuracy, places, title="Reward model's accuracy by noise level", reference=0.5),
        "tune": _training_curves(data.tune_curve),
        "reward": _training_curves(data.reward_curve),
    }


def _measure_figures(data: ReportData, arm: str) -> list[Markup]:
    """The leading measure of an arm by task, and all measures that are shares over all tasks: those have one scale."""
    baseline = next(s.baseline for s in data.summary if s.arm == arm)
    leading = findings.leading(data, arm)
    rates = [s for s in data.summary if s.arm == arm and s.task == findings.OVERALL]
    rates = [s for s in rates if s.statistic != findings.MEAN or s.convention.startswith("share")]
    drawn = []
    if leading:
        name = findings.words(leading[0])
        title = f"{name} by task, {arm} minus {baseline}"
        drawn.append(
            figures.forest([_estimate(s.task, s) for s in leading], title=title, axis=f"{name}, 95 %", reference=0.0)
        )
    if rates:
        title = f"All tasks, {arm} minus {baseline}"
        axis = "difference of shares; win rates minus 0.5; 95 %"
        drawn.append(
            figures.forest([_estimate(findings.words(s), s) for s in rates], title=title, axis=axis, reference=0.0)
        )
    return drawn


def _estimate(name: str, s: EvaluationSummary) -> Estimate:
    value, low, high = (math.nan if number is None else number for number in (s.difference, s.low, s.high))
    return Estimate(name, value, low, high)


def _training_curves(rows: Sequence[Curve]) -> list[Markup]:
    """A figure for every metric there is, the members of a pair together in one."""
    many = by_metric(rows)
    beside = {loser: winner for winner, loser in TOGETHER.items() if winner in many and loser in many}

    def series(name: str, kind: str = "one") -> Series:
        return Series(_spoken(name), [row.step for row in many[name]], [row.value for row in many[name]], kind)

    drawn = []
    for name in many:
        if name in beside:
            continue
        second = [series(loser, "two") for loser, winner in beside.items() if winner == name]
        title = _spoken(name) + (f" and {_spoken(TOGETHER[name])}" if second else "")
        reference = CHANCE if name.endswith("accuracy") else None
        drawn.append(figures.curves([series(name), *second], title=title, reference=reference))
    return drawn


def _spoken(name: str) -> str:
    return name.replace("_", " ")
