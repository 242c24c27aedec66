"""What the report says first: the headline, the gate's verdict, and where it does not work."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipelines.reporting.data import ReportData
from pipelines.reporting.text import count, fixed, percent, plural, signed
from pipelines.schemas.evaluation import EvaluationSummary
from pipelines.schemas.votes import JurorStatistics

STRICT, OVERALL = "strict", "overall"
MOST_BIAS = 0.05  # |P(first shown is chosen) - 1/2|
MOST_FAILURES = 0.0  # share of unparsable answers
MOST_CONTRADICTIONS = 0.25  # share of pairs


@dataclass(frozen=True)
class Headline:
    """The first sentence of the report, and how sure it is."""

    words: str
    verdict: str  # better | worse | open
    summary: EvaluationSummary | None


@dataclass(frozen=True)
class Verdict:
    """The gate's word."""

    words: str
    passed: bool | None
    reasons: tuple[str, ...]


def headline(data: ReportData) -> Headline:
    """Tuned against base on strict score, with its interval."""
    found = find(data, STRICT, OVERALL)
    if found is None:
        return Headline("No strict score was measured: nothing can be said of tuned against base.", "open", None)
    change = f"{signed(found.difference)}, 95 % interval [{signed(found.low)}, {signed(found.high)}]"
    if found.low > 0:
        return Headline(f"Tuning helps: strict score {change}.", "better", found)
    if found.high < 0:
        return Headline(f"Tuning hurts: strict score {change}.", "worse", found)
    return Headline(f"No difference is established: strict score {change}.", "open", found)


def find(data: ReportData, measure: str, task: str) -> EvaluationSummary | None:
    """The summary of one measure over one task, if it is there."""
    return next((s for s in data.summary if s.measure == measure and s.task == task), None)


def gate(data: ReportData) -> Verdict:
    """The gate's verdict as evaluate recorded it."""
    if not data.gate or not isinstance(data.gate.get("passed"), bool):
        return Verdict("The gate gave no verdict.", None, ())
    reasons = tuple(str(reason) for reason in data.gate.get("reasons", ()))
    if data.gate["passed"]:
        return Verdict("The gate passed.", True, reasons)
    return Verdict("The gate failed: do not use the tuned generator.", False, reasons)


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
    for s in data.summary:
        if not all(math.isfinite(v) for v in (s.difference, s.low, s.high)):
            sentences.append(f"{words(s.measure)}, {s.task}: could not be measured (n = {count(s.n)})")
        elif s.low <= 0:
            place = "is below zero" if s.high < 0 else "includes zero"
            interval = f"[{signed(s.low)}, {signed(s.high)}]"
            sentences.append(f"{words(s.measure)}, {s.task}: {signed(s.difference)}, interval {interval} {place}")
    return sentences


def _unmeasured(data: ReportData) -> list[str]:
    measured = {s.task for s in data.summary if s.measure == STRICT}
    missing = sorted({row.task for row in data.gallery.rows} - measured)
    return [f"{task}: pictures, but no strict score" for task in missing]


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
    return [f"{juror.juror}: {'; '.join(remarks(juror))}" for juror in data.jurors if remarks(juror)]


def _reward(data: ReportData) -> list[str]:
    chance = [r for r in data.reward_accuracy if not r.low > 0.5]
    return [f"t = {r.t:g}: accuracy {fixed(r.accuracy)}, interval [{fixed(r.low)}, {fixed(r.high)}]" for r in chance]


def _training(data: ReportData) -> list[str]:
    sentences = []
    broken = [s.step for s in data.tune_steps if not math.isfinite(s.loss)]
    if broken:
        sentences.append(f"the loss is not finite in {plural(len(broken), 'step')}, first in step {broken[0]}")
    last = list(data.tune_steps)[-max(1, len(data.tune_steps) // 10) :]
    if last:
        mean = sum(s.implicit_accuracy for s in last) / len(last)
        if not mean > 0.5:
            sentences.append(f"implicit accuracy over the last tenth of the steps is {fixed(mean)}, no better than chance")
        risen = sum(s.winner_error for s in last) / len(last) - data.tune_steps[0].winner_error
        fallen = sum(s.loser_error for s in last) / len(last) - data.tune_steps[0].loser_error
        if risen > 0 and fallen > 0:
            sentences.append(
                f"the error grew on winners ({signed(risen, 4)}) as on losers ({signed(fallen, 4)}) since the first step"
            )
    return sentences


def _quarantined(data: ReportData) -> list[str]:
    return [
        f"{n.node}: {plural(n.error_rows, 'row')} of {count(n.error_rows + (n.rows or 0))}"
        for n in data.nodes
        if n.error_rows
    ]


def words(measure: str) -> str:
    """A measure's name as a reader knows it."""
    known = {"win_rate_jury": "win rate by the jury", "win_rate_reward": "win rate by the reward model"}
    return known.get(measure, measure if measure != "reward" else "reward model's score")
