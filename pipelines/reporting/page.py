"""ReportData in, one HTML file out: self-contained, under a content security policy that admits nothing from outside."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from pipelines.reporting import figures, findings, text
from pipelines.reporting.dag_figure import dag
from pipelines.reporting.data import ReportData
from pipelines.reporting.figures import Curve, Estimate
from pipelines.reporting.pictures import Shown, embed
from pipelines.schemas.evaluation import Evaluation


@dataclass(frozen=True)
class Comparison:
    """One entry of the gallery."""

    row: Evaluation
    base: Shown
    tuned: Shown

    @property
    def outcome(self) -> str:
        """What tuning did to the strict score of this picture."""
        if self.row.base_strict == self.row.tuned_strict:
            return "both right" if self.row.tuned_strict else "both wrong"
        return "mended" if self.row.tuned_strict else "broken"


def render_report(data: ReportData) -> str:
    """The page; the same data give the same bytes."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, finalize=_visible, trim_blocks=True, lstrip_blocks=True
    )
    formats = {name: getattr(text, name) for name in ("fixed", "signed", "percent", "count", "seconds", "plural")}
    environment.filters |= formats | {"measure": findings.words}
    style = _resource("style.css")
    page = environment.from_string(_resource("template.html.j2")).render(
        data=data,
        style=Markup(style),  # our own file
        style_hash=base64.b64encode(hashlib.sha256(f"\n{style}".encode()).digest()).decode(),
        headline=findings.headline(data),
        gate=findings.gate(data),
        weaknesses=findings.weaknesses(data),
        remarks=findings.remarks,
        limits=findings,
        drawn=_figures(data),
        duel=_duels(data),
        generators=[rating.generator for rating in ranked(data)],
        ranked=ranked(data),
        gallery=gallery(data.gallery.rows),
        overall=[s for s in data.summary if s.task == findings.OVERALL],
        by_task=[s for s in data.summary if s.task != findings.OVERALL],
    )
    return page.rstrip() + "\n"


def _resource(name: str) -> str:
    return files("pipelines.reporting").joinpath(name).read_text(encoding="utf-8")


def _visible(value: Any) -> Any:
    return text.printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def ranked(data: ReportData) -> list[Any]:
    """Ratings, strongest first."""
    return sorted(data.ratings, key=lambda r: (-r.score, r.generator))


def gallery(rows: Sequence[Evaluation]) -> list[tuple[str, list[Comparison]]]:
    """The gallery's entries by task, in the order of the draw."""
    by_task: dict[str, list[Comparison]] = {}
    for row in rows:
        by_task.setdefault(row.task, []).append(Comparison(row, embed(row.base), embed(row.tuned)))
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
    strict = [Estimate(s.task, s.difference, s.low, s.high) for s in data.summary if s.measure == findings.STRICT]
    others = [
        Estimate(findings.words(s.measure), s.difference, s.low, s.high)
        for s in data.summary
        if s.task == findings.OVERALL and s.measure != "reward"
    ]
    accuracy = [Estimate(f"t = {r.t:g}", r.accuracy, r.low, r.high) for r in data.reward_accuracy]
    places = [r.t for r in data.reward_accuracy]
    return {
        "dag": dag(data.nodes),
        "skill": figures.forest(skill, title="Ratings: mu with two sigma either side", axis="mu, two sigma either side"),
        "strength": figures.forest(
            strength, title="Bradley-Terry log-strength with 95 % intervals", axis="Bradley-Terry log-strength, 95 %"
        ),
        "strict": figures.forest(
            strict,
            title="Strict score by task, tuned minus base",
            axis="strict score, tuned minus base, 95 %",
            reference=0.0,
        ),
        "others": figures.forest(
            others, title="All tasks, tuned minus base", axis="tuned minus base; win rates minus 0.5; 95 %", reference=0.0
        ),
        "gaps": figures.histogram(data.gaps, title="Posterior gaps of the pairs", axis="gap of the pair, rating's scale"),
        "accuracy": figures.by_noise(accuracy, places, title="Reward model's accuracy by noise level", reference=0.5),
        "tune": _tune_curves(data),
        "reward": _reward_curves(data),
    }


def _tune_curves(data: ReportData) -> list[Markup]:
    steps = [s.step for s in data.tune_steps]

    def curve(name: str, kind: str = "one") -> Curve:
        return Curve(name.replace("_", " "), steps, [getattr(s, name) for s in data.tune_steps], kind)

    drawn = [
        figures.curves([curve("loss")], title="loss"),
        figures.curves([curve("implicit_accuracy")], title="implicit accuracy", reference=0.5),
        figures.curves([curve("winner_error"), curve("loser_error", "two")], title="velocity error"),
    ]
    there = [name for name in ("drift", "error_drift") if all(getattr(s, name) is not None for s in data.tune_steps)]
    rest = (*there[:1], "gradient_norm", "learning_rate")
    return drawn + [figures.curves([curve(name)], title=name.replace("_", " ")) for name in rest]


def _reward_curves(data: ReportData) -> list[Markup]:
    steps = [s.step for s in data.reward_steps]
    return [
        figures.curves([Curve("loss", steps, [s.loss for s in data.reward_steps])], title="loss"),
        figures.curves(
            [Curve("accuracy", steps, [s.accuracy for s in data.reward_steps])],
            title="accuracy in the batch",
            reference=0.5,
        ),
    ]
