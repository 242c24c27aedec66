"""What the report says first: the headline, the gate's verdict, and where it does not work."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipelines.reporting.data import ReportData
from pipelines.reporting.text import count, fixed, percent, plural, signed
from pipelines.schemas.curves import ends
from pipelines.schemas.evaluation import EvaluationSummary, GateReason
from pipelines.schemas.votes import JurorStatistics

OVERALL = "overall"
MEAN, WIN_RATE = "mean", "win_rate"
MOST_BIAS = 0.05  # |P(first shown is chosen) - 1/2|
MOST_FAILURES = 0.0  # share of unparsable answers
MOST_CONTRADICTIONS = 0.25  # share of pairs


@dataclass(frozen=True)
class Headline:
    """What the report says first of an arm, and how sure it is."""

    words: str
    outcome: str  # better | worse | open
    summary: EvaluationSummary | None


@dataclass(frozen=True)
class GateWords:
    """The gate's verdict on an arm as a sentence, with its reasons."""

    words: str
    passed: bool | None
    reasons: tuple[str, ...]


def headlines(data: ReportData) -> list[Headline]:
    """For each arm its difference to the baseline by the leading measure; at least one entry."""
    arms = dict.fromkeys(s.arm for s in data.summary)
    return [_headline(arm, leading(data, arm)) for arm in arms] or [_headline("", [])]


def leading(data: ReportData, arm: str) -> list[EvaluationSummary]:
    """The first held-out measure of an arm in its first dimension, over all tasks first and then over each."""
    of_arm = [s for s in primary(data.summary) if s.arm == arm and not s.trained_on]
    return [s for s in of_arm if (s.measure, s.dimension) == (of_arm[0].measure, of_arm[0].dimension)]


def primary(rows: Sequence[EvaluationSummary]) -> list[EvaluationSummary]:
    """One statistic per measure and dimension: the mean where there is one, otherwise the win rate."""
    means = {(s.measure, s.dimension) for s in rows if s.statistic == MEAN}
    wanted = {True: MEAN, False: WIN_RATE}
    return [s for s in rows if s.statistic == wanted[(s.measure, s.dimension) in means]]


def _headline(arm: str, rows: Sequence[EvaluationSummary]) -> Headline:
    found = next((s for s in rows if s.task == OVERALL and measured(s)), None)
    if found is None:
        return Headline(f"{arm or 'No arm'}: no held-out measure, so nothing can be said of it.", "open", None)
    change = f"{words(found)} {signed(found.difference)}, 95 % interval [{signed(found.low)}, {signed(found.high)}]"
    if found.low is not None and found.low > 0:
        return Headline(f"{arm} is better than {found.baseline}: {change}.", "better", found)
    if found.high is not None and found.high < 0:
        return Headline(f"{arm} is worse than {found.baseline}: {change}.", "worse", found)
    return Headline(f"No difference between {arm} and {found.baseline} is established: {change}.", "open", found)


def measured(s: EvaluationSummary) -> bool:
    """Whether its difference and interval are numbers."""
    return all(v is not None and math.isfinite(v) for v in (s.difference, s.low, s.high))


def gate(data: ReportData) -> list[GateWords]:
    """The gate's verdict on each arm, as `evaluate` recorded it; at least one entry."""
    arms = dict.fromkeys(reason.arm for reason in data.gate)
    return [_gate_words(arm, [r for r in data.gate if r.arm == arm]) for arm in arms] or [
        GateWords("The gate gave no verdict.", None, ())
    ]


def _gate_words(arm: str, reasons: Sequence[GateReason]) -> GateWords:
    said = tuple(r.reason for r in reasons)
    if all(r.passed for r in reasons):
        return GateWords(f"The gate passed {arm}.", True, said)
    return GateWords(f"The gate failed {arm}: do not use it.", False, said)


def weaknesses(data: ReportData) -> list[tuple[str, list[str]]]:
    """Where it does not work: (what, sentences), without those that have nothing to say."""
    found = [
        ("Scores that did not rise", _scores(data)),
        ("Tasks not measured", _unmeasured(data)),
        ("Jurors to distrust", _jurors(data)),
        ("Reward model at chance", _reward(data)),
        ("Training", _training(data)),
        ("Rows in quarantine", _quarantined(data)),
    ]
    return [(what, sentences) for what, sentences in found if sentences]


def _scores(data: ReportData) -> list[str]:
    sentences = []
    for s in primary(data.summary):
        what = f"{s.arm}, {words(s)}, {s.task}"
        if s.low is None or s.high is None or not measured(s):
            sentences.append(f"{what}: could not be measured (n = {count(s.n)})")
        elif s.low <= 0:
            place = "is below zero" if s.high < 0 else "includes zero"
            interval = f"[{signed(s.low)}, {signed(s.high)}]"
            sentences.append(f"{what}: {signed(s.difference)}, interval {interval} {place}")
    return sentences


def _unmeasured(data: ReportData) -> list[str]:
    known = {s.task for s in data.summary if not s.trained_on}
    missing = sorted({entry.task for entry in data.gallery.entries} - known)
    return [f"{task}: pictures, but no held-out measure" for task in missing]


def remarks(juror: JurorStatistics) -> list[str]:
    """What is wrong with a juror."""
    found = []
    if juror.failure_rate is not None and juror.failure_rate > MOST_FAILURES:
        found.append(f"{percent(juror.failure_rate)} of the answers unparsable")
    if juror.position_bias is not None and abs(juror.position_bias) > MOST_BIAS:
        favoured = "first" if juror.position_bias > 0 else "second"
        found.append(f"favours the picture shown {favoured} ({signed(juror.position_bias)})")
    if juror.contradiction_rate is not None and juror.contradiction_rate > MOST_CONTRADICTIONS:
        found.append(f"contradicts itself on {percent(juror.contradiction_rate)} of the pairs")
    if juror.agreement_with_panel is not None and juror.agreement_with_panel <= 0.5:
        found.append(f"agrees with the others no more than by chance ({fixed(juror.agreement_with_panel)})")
    return found


def _jurors(data: ReportData) -> list[str]:
    def name(juror: JurorStatistics) -> str:
        return juror.juror if juror.dimension == OVERALL else f"{juror.juror}, {juror.dimension}"

    return [f"{name(juror)}: {'; '.join(remarks(juror))}" for juror in data.jurors if remarks(juror)]


def _reward(data: ReportData) -> list[str]:
    chance = [r for r in data.reward_accuracy if not r.low > 0.5]
    return [f"t = {r.t:g}: accuracy {fixed(r.accuracy)}, interval [{fixed(r.low)}, {fixed(r.high)}]" for r in chance]


def _training(data: ReportData) -> list[str]:
    """What the curve says against the training; a metric that it does not have says nothing."""
    sentences = []
    broken = sorted(row.step for row in data.tune_curve if row.metric == "loss" and not math.isfinite(row.value))
    if broken:
        sentences.append(f"the loss is not finite in {plural(len(broken), 'step')}, first in step {broken[0]}")
    found = ends(data.tune_curve)
    _, accuracy = found.get("implicit_accuracy", (None, None))
    if accuracy is not None and not accuracy > 0.5:
        sentences.append(f"implicit accuracy over the last tenth of the steps is {fixed(accuracy)}, no better than chance")
    won, lost = (_change(found, f"{side}_error") for side in ("winner", "loser"))
    if won is not None and lost is not None and won > 0 and lost > 0:
        sentences.append(
            f"the error grew on winners ({signed(won, 4)}) as on losers ({signed(lost, 4)}) from the first to the last "
            "tenth of the steps"
        )
    return sentences


def _change(found: Mapping[str, tuple[float | None, float | None]], metric: str) -> float | None:
    """Mean over the last tenth of the steps minus that over the first; None where one is missing."""
    first, last = found.get(metric, (None, None))
    return None if first is None or last is None else last - first


def _quarantined(data: ReportData) -> list[str]:
    return [
        f"{n.node}: {plural(n.error_rows, 'row')} of {count(n.error_rows + (n.rows or 0))}"
        for n in data.nodes
        if n.error_rows
    ]


def words(s: EvaluationSummary) -> str:
    """A measure's name with its dimension and, where it is no mean, its statistic."""
    parts = [s.measure] + [s.dimension] * (s.dimension != OVERALL) + [s.statistic.replace("_", " ")] * (s.statistic != MEAN)
    return " ".join(parts)
