"""Stage `label`: votes to preferences, with ties and agreement, and the audit of every juror."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Annotated, ClassVar

from pydantic import Field

from infra.dag.stage import Context, Inputs, TableStage
from pipelines.algorithms.voting.audit import audit
from pipelines.algorithms.voting.ballots import CHOICES, Consistency, answers, ballots
from pipelines.algorithms.voting.dawid_skene import DawidSkene
from pipelines.algorithms.voting.panel import Majority, Unanimous, count_ballots
from pipelines.schemas.votes import JurorStatistics, Preference
from pipelines.stages.judge import Judge
from pipelines.stages.pair import Pairs
from pipelines.stages.sources import Labels

Panel = Annotated[Majority | Unanimous | DawidSkene, Field(discriminator="kind")]


class Label(TableStage, Labels):
    """Votes in; one preference a judged pair out. The votes are kept as they are: another rule is another, cheap label."""

    name: ClassVar = "label"
    row: ClassVar = Preference
    tables: ClassVar[Mapping[str, type]] = {"jurors": JurorStatistics, **Labels.tables}

    pairs: Pairs
    votes: Judge
    consistency: Consistency = Consistency()
    "What a juror's two orders come to."
    panel: Panel = Majority()
    "How the jurors' words become one."

    def run(self, context: Context) -> Iterator[Preference]:
        """Preferences in the order of the pairs; a pair without any vote (all quarantined) has none."""
        votes = context.table(self.votes, ["pair_id", "juror", "order", "choice", "score"])
        columns = {name: votes[name].to_pylist() for name in votes.column_names}
        given = answers(columns["pair_id"], juror=columns["juror"], order=columns["order"], choice=columns["choice"])
        said = ballots(given, options=self.consistency)
        verdicts = self.panel.verdicts(said)
        counts = count_ballots(said)
        context.emit("jurors", [JurorStatistics(**asdict(one)) for one in audit(given, ballots=said)])
        score = mean_scores(columns["pair_id"], columns["juror"], columns["score"])
        number = {name: row for row, name in enumerate(given.pair_ids)}
        decided = 0
        for pair in context.rows(self.pairs):
            row = number.get(pair.id)
            if row is None:
                continue
            choice = CHOICES[int(verdicts.choice[row])]
            decided += choice != "tie"
            yield Preference(
                id=pair.id,
                prompt_id=pair.prompt_id,
                text=pair.text,
                picture_a=pair.picture_a,
                picture_b=pair.picture_b,
                generator_a=pair.generator_a,
                generator_b=pair.generator_b,
                choice=choice,
                agreement=float(verdicts.agreement[row]),
                score=score[pair.id],
                votes_a=int(counts[row, 0]),
                votes_b=int(counts[row, 1]),
                votes_tie=int(counts[row, 2]),
                votes_unparsable=int(counts[row, 3]),
            )
        context.metric("decided_pairs", decided)

    def expected_rows(self, inputs: Inputs) -> int:
        """One a pair."""
        return inputs.table(self.pairs, ["id"]).num_rows


def mean_scores(pair_ids: list[str], jurors: list[str], scores: list[float | None]) -> dict[str, float]:
    """Mean over jurors of each juror's mean log-odds over the two orders; 0 where there is none.

    The mean over orders takes out an additive bias for a position.
    """
    by_juror: dict[tuple[str, str], list[float]] = defaultdict(list)
    for pair, juror, score in zip(pair_ids, jurors, scores, strict=True):
        if score is not None:
            by_juror[pair, juror].append(score)
    by_pair: dict[str, list[float]] = {pair: [] for pair in pair_ids}
    for (pair, _), values in sorted(by_juror.items()):
        by_pair[pair].append(sum(values) / len(values))
    return {pair: sum(values) / len(values) if values else 0.0 for pair, values in by_pair.items()}
