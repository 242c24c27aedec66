"""The laboratory's page as HTML, Markdown and SVG: claims with intervals, a figure each, and how it was measured."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from pipelines.laboratory.rows import MEASURES, ClaimVerdict, ContenderScore, KnownStrength
from pipelines.reporting import text
from pipelines.reporting.figures import Estimate, forest
from pipelines.reporting.svg import element

HTML, MARKDOWN = "lab.html", "lab.md"
MAIN = MEASURES[0]
MEANING = {
    "strict": "Strict score: share of pictures that show exactly what was asked",
    "partial": "Partial credit: how much of what was asked is there, in [0, 1]",
    "quality": "Quality: clean drawing, whatever was asked, in [0, 1]",
}
SVG = "http://www.w3.org/2000/svg"
COLOUR = {"holds": "good", "does not hold": "bad", "undecided": "open"}


@dataclass(frozen=True)
class Sizes:
    """How much was measured."""

    training: int  # captions whose pairs are learnt from
    tuning: int  # captions that choose settings
    evaluation: int  # held-out captions
    seeds: int
    candidates: int
    steps: int
    batch: int


@dataclass(frozen=True)
class LabReport:
    """Everything on the page."""

    verdicts: Sequence[ClaimVerdict]
    scores: Sequence[ContenderScore]
    roster: Sequence[KnownStrength]
    claims: Sequence[tuple[str, str]]  # (name, statement), in their order
    sizes: Sizes
    pairs: dict[str, int]  # by contender, at its least noise
    target: str


def write(data: LabReport, folder: Path) -> None:
    """`lab.html`, `lab.md` and `claim-NAME.svg` for every claim; the same data give the same bytes."""
    for name, statement in data.claims:
        (folder / f"claim-{name}.svg").write_text(standalone(_figure(data, name, statement)), encoding="utf-8")
    (folder / HTML).write_text(page(data), encoding="utf-8")
    (folder / MARKDOWN).write_text(markdown(data), encoding="utf-8")


def headline(data: LabReport) -> str:
    """How many comparisons hold and how many do not, by each measure."""
    counts = {word: Counter(row.measure for row in data.verdicts if row.verdict == word) for word in COLOUR}
    compared = text.plural(sum(row.measure == MAIN for row in data.verdicts), "comparison")
    hold, fail = (", ".join(f"{counts[word][name]} by {name}" for name in MEASURES) for word in ("holds", "does not hold"))
    return f"Of {compared} with 95 % intervals, these hold: {hold}; these do not: {fail}. The others are undecided."


def method(data: LabReport) -> list[str]:
    """How it was measured, a sentence or two each."""
    sizes = data.sizes
    training, tuning, held_out, settings, steps, seeds = (
        text.plural(number, one)
        for number, one in (
            (sizes.training, "training caption"),
            (sizes.tuning, "caption"),
            (sizes.evaluation, "held-out caption"),
            (sizes.candidates, "setting"),
            (sizes.steps, "step"),
            (sizes.seeds, "training seed"),
        )
    )
    learnt = (
        f"Every contender learns from pairs of the same {training} in batches of {sizes.batch} pairs, by full fine-tuning; "
        f"short training is {steps}. Which pairs are used, and how many, is in the table of contenders."
    )
    budgets = (
        f"Equal tuning budgets: every contender tries {settings} at every noise level and training seed; the exact checker "
        f"on {tuning} of the training split, none of them rendered for training, chooses one for that seed. No held-out "
        "caption takes part in it."
    )
    scored = (
        f"Scores are the exact checker's on {held_out}, one picture each with the same seeds for all, over {seeds}. "
        "Contenders are compared seed by seed: the same flipped labels, and the same order of examples where they learn "
        "from the same pairs."
    )
    intervals = (
        "Intervals are at 95 %: half-widths of Student's t over captions and over training seeds, added in quadrature; few "
        "seeds make them wide. A seed chooses its settings anew, so what the choice adds is in them; the pairs and the "
        "jury's labels are one draw, and what others would add is not."
    )
    noise = (
        "Label noise is the share of the jury's decided labels that were turned round on top of its own mistakes; the "
        "arena plays its matches again with the flipped labels, and rewards (RWR) go with the label."
    )
    caution = (
        "A trial that diverged counts as wrong on every caption. With many intervals at 95 %, one in twenty of the claims "
        "without any effect is expected to be decided by chance."
    )
    found = [learnt, budgets, scored, intervals, noise, caution]
    if sizes.seeds == 1:
        found.append("There is one training seed only: how far another would be is not in the intervals.")
    return found


def undecided(data: LabReport) -> list[str]:
    """Where nothing was decided, by the strict score."""
    rows = [row for row in data.verdicts if row.measure == MAIN and row.verdict == "undecided"]
    return [f"{row.statement}, {noise_words(row.noise)}: {_interval(row)}" for row in rows]


def noise_words(noise: float) -> str:
    """In words."""
    return f"{noise * 100:.3g} % of the labels flipped" if noise else "labels as the jury gave them"


def settings_words(row: ContenderScore) -> str:
    """The chosen settings, phase by phase: what differs from a method's defaults is not told apart."""
    phases = []
    for phase in json.loads(row.settings):
        method = phase["method"]
        words = [method["method"], f"rate {phase['learning_rate']:g}"]
        for name in ("beta", "temperature"):
            words += [f"{name} {method[name]:g}"] if name in method else []
        margin, polynomial = method.get("margin", {}), method.get("polynomial", {})
        words += [f"margin {margin['value']:g}"] if "value" in margin else []
        words += [f"margin {margin['scale']:g} x gap"] if "scale" in margin else []
        words += ["alpha auto"] if polynomial.get("kind") == "auto" else []
        words += [f"alpha {polynomial['alpha']:g}"] if polynomial.get("alpha") else []
        phases.append(", ".join(words))
    return "; then ".join(phases)


def page(data: LabReport) -> str:
    """One self-contained HTML file; every foreign word is escaped."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, finalize=_visible, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {name: getattr(text, name) for name in ("fixed", "signed", "count", "plural")}
    environment.filters |= {"noise": noise_words, "settings": settings_words, "percentage": _percentage}
    style = _resource("style.css", of="pipelines.reporting")
    written = environment.from_string(_resource("page.html.j2")).render(
        data=data,
        style=Markup(style),  # our own file
        style_hash=base64.b64encode(hashlib.sha256(f"\n{style}".encode()).digest()).decode(),
        headline=headline(data),
        method=method(data),
        undecided=undecided(data),
        colour=COLOUR,
        tables={MEANING[name]: [row for row in data.verdicts if row.measure == name] for name in MEASURES},
        drawn={name: _figure(data, name, statement) for name, statement in data.claims},
        of={name: [row for row in data.verdicts if row.claim == name] for name, _ in data.claims},
    )
    return written.rstrip() + "\n"


def markdown(data: LabReport) -> str:
    """The same tables as Markdown, with links to the figures."""
    lines = ["# The laboratory of claims", "", headline(data), "", "## Claims", ""]
    lines += _rows(
        ["claim", "measure", "noise", "better", "worse", "difference", "95 % interval", "verdict", "seeds"],
        [
            [
                row.statement,
                row.measure,
                _percentage(row.noise),
                f"{row.better} {row.better_mean:.3f}",
                f"{row.worse} {row.worse_mean:.3f}",
                f"{row.difference:+.3f}",
                _interval(row),
                row.verdict + (f" ({row.diverged} diverged)" if row.diverged else ""),
                str(row.seeds),
            ]
            for row in data.verdicts
        ],
    )
    lines += ["", "## How it was measured", "", *[f"* {_plain(one)}" for one in method(data)], ""]
    lines += ["## Contenders", ""]
    lines += _rows(
        ["contender", "noise", *MEASURES, "tried", "chosen", "steps", "pairs", "diverged"],
        [
            [
                f"{row.contender}: {row.title}",
                _percentage(row.noise),
                *(f"{getattr(row, measure):.3f}" for measure in MEASURES),
                str(row.candidates),
                f"{settings_words(row)} ({row.chosen} of {row.seeds})" if row.candidates else "",
                str(row.steps),
                str(data.pairs.get(row.contender, 0)),
                f"{row.diverged} of {row.seeds}, {row.tuning_diverged} in tuning",
            ]
            for row in data.scores
        ],
    )
    lines += ["", "## Generators", ""]
    lines += _rows(
        ["generator", *MEASURES, "pictures", "arena mu", "sigma"],
        [
            [
                r.generator,
                *(f"{getattr(r, measure):.3f}" for measure in MEASURES),
                str(r.pictures),
                f"{r.mu:.2f}",
                f"{r.sigma:.2f}",
            ]
            for r in data.roster
        ],
    )
    lines += ["", "## Figures", ""]
    lines += [f"![{_plain(statement)}](claim-{name}.svg)" for name, statement in data.claims]
    return "\n".join(lines) + "\n"


def standalone(figure: Markup) -> str:
    """A figure as a file of its own, with the page's colours."""
    ground = "svg { background: var(--paper); font-family: system-ui, sans-serif; }\n"
    style = element(
        "style", Markup(_resource("style.css", of="pipelines.reporting") + ground)
    )  # our own; no character that XML would mind
    opening, rest = str(figure).split(">", 1)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{opening.replace("<svg", f"<svg xmlns={SVG!r}", 1)}>{style}{rest}\n'


def _figure(data: LabReport, name: str, statement: str) -> Markup:
    """Differences of one claim by measure and noise."""
    rows = [row for row in data.verdicts if row.claim == name]
    estimates = [
        Estimate(f"{row.measure}, {_percentage(row.noise)} flipped", row.difference, row.low, row.high) for row in rows
    ]
    axis = f"{rows[0].better} minus {rows[0].worse}, 95 %" if rows else "no trial"
    return forest(estimates, title=statement, axis=axis, reference=0.0)


def _interval(row: ClaimVerdict) -> str:
    return f"[{text.signed(row.low)}, {text.signed(row.high)}]"


def _percentage(noise: float) -> str:
    return f"{noise * 100:.3g} %"


def _rows(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(_plain(cell) for cell in line)} |" for line in lines]


def _plain(words: str) -> str:
    """Text that means nothing to Markdown or HTML."""
    for character in "\\`*_[]|":
        words = words.replace(character, f"\\{character}")
    words = words.replace("<", "&lt;").replace(">", "&gt;")
    return text.printable(words).replace("\n", " ")


def _resource(name: str, *, of: str = "pipelines.laboratory") -> str:
    return files(of).joinpath(name).read_text(encoding="utf-8")


def _visible(value: Any) -> Any:
    return text.printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
